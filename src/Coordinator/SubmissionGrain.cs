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
        if (first with { Id = spec.Id, TraceParent = spec.TraceParent, Submission = spec.Submission } != spec)
        {
            return null;
        }
        JobRecord? job;
        while ((job = await GrainFactory.GetGrain<IJobGrain>(first.Id.Value).Submit(first)) is null)
        {
            // Another job has this id.
            state.State.Spec = first = first with { Id = JobId.New(first.Name) };
            await state.WriteStateAsync();
        }
        return job;
    }
}

[GenerateSerializer, Alias("trainer.submission-state")]
public sealed class SubmissionState
{
    [Id(0)] public JobSpec? Spec { get; set; }
}
