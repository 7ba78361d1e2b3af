using Microsoft.Extensions.Logging;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>One watch a job for all who follow it in this process, as long as somebody does.</summary>
public sealed class JobWatches(IGrainFactory grains, TrainerHome home, LogArchive archive, FileGrowth growth, JobRows rows, TimeProvider time, ILogger<JobWatches> log)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<JobId, JobWatch> _watches = [];

    /// <summary>Jobs that are watched.</summary>
    public int Count
    {
        get
        {
            lock (_lock)
            {
                return _watches.Count;
            }
        }
    }

    /// <summary>Something happened to the job: who watches it looks at once. Others of the cluster look now and then.</summary>
    public void Tell(JobId job)
    {
        rows.Tell(job);
        lock (_lock)
        {
            _watches.GetValueOrDefault(job)?.Tell();
        }
    }

    /// <summary>Watches until the lease is disposed.</summary>
    internal JobWatchLease Watch(JobId job)
    {
        lock (_lock)
        {
            if (!_watches.TryGetValue(job, out JobWatch? watch))
            {
                _watches.Add(job, watch = new JobWatch(grains.GetGrain<IJobGrain>(job.Value), home, home.Job(job), archive, growth, time, log));
            }
            watch.Watchers++;
            return new JobWatchLease(watch, () => Leave(job, watch));
        }
    }

    private void Leave(JobId job, JobWatch watch)
    {
        lock (_lock)
        {
            if (--watch.Watchers == 0)
            {
                _watches.Remove(job);
                watch.End();
            }
        }
    }
}

/// <summary>A part in a watch.</summary>
internal sealed class JobWatchLease(JobWatch watch, Action leave) : IDisposable
{
    private Action? _leave = leave;

    /// <inheritdoc cref="JobWatch.AfterAsync"/>
    public Task<JobSight?> AfterAsync(JobSight? seen, TimeSpan atMost, CancellationToken cancellationToken) => watch.AfterAsync(seen, atMost, cancellationToken);

    public void Dispose() => Interlocked.Exchange(ref _leave, null)?.Invoke();
}
