using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>Stores which job a key means before it submits it, so that a repeated submit finds the same job.</summary>
public sealed class SubmissionGrain([PersistentState("submission")] IPersistentState<SubmissionState> state) : Grain, ISubmissionGrain
{
    public async Task<JobRecord?> Submit(JobSpec spec)
    {
        if (state.State.Spec is null)
        {
            state.State.Spec = spec;
            await state.WriteStateAsync();
        }
        JobSpec first = state.State.Spec;
        return first with { Id = spec.Id, TraceParent = spec.TraceParent } == spec ? await GrainFactory.GetGrain<IJobGrain>(first.Id.Value).Submit(first) : null;
    }
}

[GenerateSerializer, Alias("trainer.submission-state")]
public sealed class SubmissionState
{
    [Id(0)] public JobSpec? Spec { get; set; }
}
