using System.Collections.Immutable;
using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;

namespace Trainer.Coordinator;

public sealed class JobIndexGrain([PersistentState("index")] IPersistentState<JobIndexState> state) : Grain, IJobIndexGrain
{
    public Task Register(JobIndexEntry job) => PutAsync(job);

    public Task Retire(JobId job) =>
        state.State.Jobs.Find(entry => entry.Id == job) is { Active: true } entry ? PutAsync(entry with { Active = false }) : Task.CompletedTask;

    public Task<ImmutableArray<JobIndexEntry>> List() => Task.FromResult<ImmutableArray<JobIndexEntry>>([.. state.State.Jobs]);

    private async Task PutAsync(JobIndexEntry entry)
    {
        List<JobIndexEntry> jobs = state.State.Jobs;
        int at = jobs.FindIndex(known => known.Id == entry.Id);
        if (at >= 0 && jobs[at] == entry)
        {
            return;
        }
        if (at >= 0)
        {
            jobs[at] = entry;
        }
        else
        {
            jobs.Add(entry);
        }
        await state.WriteStateAsync();
    }
}

[GenerateSerializer, Alias("trainer.job-index-state")]
public sealed class JobIndexState
{
    /// <summary>In order of submission.</summary>
    [Id(0)] public List<JobIndexEntry> Jobs { get; set; } = [];
}
