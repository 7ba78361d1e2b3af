// The live counters are the process's: a leak test must not see other tests' tensors.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
