using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;
using Trainer.Coordinator.Telemetry;

namespace Trainer.Coordinator;

/// <summary>The catalogue of one job: lets <see cref="CheckpointRules"/> decide, and stores before it answers.</summary>
public sealed class CheckpointsGrain(
    [PersistentState("checkpoints")] IPersistentState<CheckpointsState> state, CoordinatorMetrics metrics, TimeProvider time) : Grain, ICheckpointsGrain
{
    public async Task<bool> Commit(int attempt, CheckpointReport report)
    {
        CheckpointCatalogue? next = CheckpointRules.Commit(state.State.Catalogue, attempt, report, time.GetUtcNow());
        if (next is not null)
        {
            await StoreAsync(next);
        }
        return next is not null;
    }

    public Task<CheckpointCatalogue> Get() => Task.FromResult(state.State.Catalogue);

    public async Task<CheckpointEntry?> Judge(int step, CheckpointVerdict verdict)
    {
        if (CheckpointRules.Judge(state.State.Catalogue, step, verdict, time.GetUtcNow()) is not { } next)
        {
            return null;
        }
        await StoreAsync(next);
        return next.Entries.First(entry => entry.Step == step && entry.Attempt == verdict.Attempt);
    }

    private async Task StoreAsync(CheckpointCatalogue next)
    {
        CheckpointCatalogue before = state.State.Catalogue;
        if (next == before)
        {
            return;
        }
        state.State.Catalogue = next;
        long start = time.GetTimestamp();
        try
        {
            await state.WriteStateAsync();
            metrics.Wrote("checkpoints", time.GetElapsedTime(start));
        }
        catch
        {
            state.State.Catalogue = before;
            throw;
        }
        metrics.Committed(CheckpointRules.Since(before, next, entry => entry.CommittedAt is not null));
        metrics.Quarantined(CheckpointRules.Since(before, next, entry => entry.Status is CheckpointStatus.Quarantined));
    }
}

/// <summary>What is stored of a job's checkpoints.</summary>
[GenerateSerializer, Alias("trainer.checkpoints-state")]
public sealed class CheckpointsState
{
    [Id(0)] public CheckpointCatalogue Catalogue { get; set; } = new();
}
