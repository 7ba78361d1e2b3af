using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>When a coordinator starts, every job that has not ended is looked after again, in order of submission.</summary>
internal sealed partial class WakeUp(IGrainFactory grains, ILogger<WakeUp> log) : IHostedService
{
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        System.Collections.Immutable.ImmutableArray<JobIndexEntry>[] shards =
            await Task.WhenAll(JobIndexShards.All.Select(shard => grains.GetGrain<IJobIndexGrain>(shard).List()));
        JobIndexEntry[] active = [.. shards.SelectMany(shard => shard).Where(entry => entry.Active).OrderBy(entry => entry.SubmittedAt)];
        foreach (JobIndexEntry entry in active)
        {
            await grains.GetGrain<IJobGrain>(entry.Id.Value).Wake();
        }
        LogAwake(active.Length);
    }

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    [LoggerMessage(Level = LogLevel.Information, Message = "The coordinator looks after {Count} jobs that have not ended")]
    private partial void LogAwake(int count);
}
