using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>One machine, one job. Jobs ask again and again; the answers depend on what is stored, never on who asked first.</summary>
public sealed class QueueGrain([PersistentState("queue")] IPersistentState<QueueState> state, TimeProvider time) : Grain, IQueueGrain
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(1);

    private readonly Dictionary<JobId, long> _asked = [];
    private long _activated;

    public override Task OnActivateAsync(CancellationToken cancellationToken)
    {
        _activated = time.GetTimestamp();
        return Task.CompletedTask;
    }

    public async Task<QueuePlace> Acquire(QueueRequest request)
    {
        _asked[request.Job] = time.GetTimestamp();
        QueueState queue = state.State;
        bool changed = DropSilent(queue);
        if (queue.Holder != request.Job && queue.Waiting.TrueForAll(waiting => waiting.Job != request.Job))
        {
            queue.Waiting.Add(request);
            queue.Waiting.Sort(InOrder);
            changed = true;
        }
        if (queue.Holder is null && queue.Waiting[0].Job == request.Job)
        {
            queue.Holder = request.Job;
            queue.Waiting.RemoveAt(0);
            changed = true;
        }
        if (changed)
        {
            await state.WriteStateAsync();
        }
        return queue.Holder == request.Job ? new QueuePlace { Granted = true } : new QueuePlace { Granted = false, Reason = Why(queue, request.Job) };
    }

    public async Task Release(JobId job)
    {
        _asked.Remove(job);
        if (Remove(state.State, job))
        {
            await state.WriteStateAsync();
        }
    }

    private static string Why(QueueState queue, JobId job)
    {
        int position = queue.Waiting.FindIndex(waiting => waiting.Job == job) + 1;
        JobId ahead = queue.Holder ?? queue.Waiting[0].Job;
        return $"waiting for job {ahead} on this machine (position {position} of {queue.Waiting.Count})";
    }

    /// <summary>A job that stopped asking has ended without saying so, or never will run again.</summary>
    private bool DropSilent(QueueState queue)
    {
        JobId[] silent = [.. queue.Waiting.Select(waiting => waiting.Job).Concat(queue.Holder is { } holder ? [holder] : [])
            .Where(job => time.GetElapsedTime(_asked.GetValueOrDefault(job, _activated)) > s_patience)];
        foreach (JobId job in silent)
        {
            Remove(queue, job);
        }
        return silent.Length > 0;
    }

    private static bool Remove(QueueState queue, JobId job)
    {
        if (queue.Holder == job)
        {
            queue.Holder = null;
            return true;
        }
        return queue.Waiting.RemoveAll(waiting => waiting.Job == job) > 0;
    }

    private static int InOrder(QueueRequest a, QueueRequest b) =>
        (-a.Priority, a.SubmittedAt, a.Job.Value).CompareTo((-b.Priority, b.SubmittedAt, b.Job.Value));
}

[GenerateSerializer, Alias("trainer.queue-state")]
public sealed class QueueState
{
    [Id(0)] public JobId? Holder { get; set; }

    /// <summary>Next one first.</summary>
    [Id(1)] public List<QueueRequest> Waiting { get; set; } = [];
}
