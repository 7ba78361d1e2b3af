using System.Collections.Concurrent;

namespace Trainer.Coordinator;

/// <summary>
/// Lets an agent that waits learn at once that there are new orders for it, when its node lives in this process; otherwise it
/// learns with its next report.
/// </summary>
public sealed class NodeChanges
{
    private readonly ConcurrentDictionary<string, TaskCompletionSource> _waiting = new(StringComparer.Ordinal);

    public void Tell(string node)
    {
        if (_waiting.TryRemove(node, out TaskCompletionSource? waiting))
        {
            waiting.TrySetResult();
        }
    }

    /// <summary>Returns when something changed, or after the time.</summary>
    public Task WaitAsync(string node, TimeSpan atMost, CancellationToken cancellationToken) =>
        _waiting.GetOrAdd(node, _ => new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously))
            .Task.WaitAsync(atMost, cancellationToken).ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
}
