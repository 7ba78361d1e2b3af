using System.Collections.Concurrent;
using Microsoft.Extensions.Hosting;

namespace Trainer.Coordinator;

/// <summary>
/// Lets an agent that waits learn at once that there are new orders for it, when its node lives in this process; otherwise it
/// learns with its next report.
/// </summary>
public sealed class NodeChanges(IHostApplicationLifetime lifetime)
{
    private readonly ConcurrentDictionary<string, TaskCompletionSource> _waiting = new(StringComparer.Ordinal);

    public void Tell(string node)
    {
        if (_waiting.TryRemove(node, out TaskCompletionSource? waiting))
        {
            waiting.TrySetResult();
        }
    }

    /// <summary>Returns when something changed, after the time, or when the coordinator stops.</summary>
    public async Task WaitAsync(string node, TimeSpan atMost, CancellationToken cancellationToken)
    {
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, lifetime.ApplicationStopping);
        await _waiting.GetOrAdd(node, _ => new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously))
            .Task.WaitAsync(atMost, ended.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }
}
