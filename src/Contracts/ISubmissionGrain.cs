using Orleans;

namespace Trainer.Contracts;

/// <summary>Makes a submission happen once. Its key is the idempotency key.</summary>
[Alias("trainer.submission.v1")]
public interface ISubmissionGrain : IGrainWithStringKey
{
    /// <summary>Submits the job, or finds the one that this key has submitted before. Null: the key belongs to another configuration.</summary>
    [Alias("submit")]
    Task<JobRecord?> Submit(JobSpec spec);
}
