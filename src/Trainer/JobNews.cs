using Trainer.Contracts;

namespace Trainer.Cli;

/// <summary>Waits without asking again and again: the coordinator answers when something happens.</summary>
internal static class JobNews
{
    private static readonly TimeSpan s_wait = TimeSpan.FromSeconds(10);

    /// <summary>For what a job waits may change without an event.</summary>
    private static readonly TimeSpan s_shortWait = TimeSpan.FromSeconds(2);

    /// <summary>Returns when something happened to the job, when a rank wrote something, or after a while.</summary>
    /// <exception cref="CoordinatorException">The coordinator does not answer.</exception>
    public static async Task WaitAsync(CoordinatorClient client, JobView job, IEnumerable<LogTail> tails, CancellationToken cancellationToken)
    {
        using var waiting = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        TimeSpan atMost = job.Status.HasAttempt() ? s_wait : s_shortWait;
        int seen = job.History is [.., var newest] ? newest.Sequence : 0;
        Task[] news = [client.EventsAsync(job.Id.Value, seen, atMost, waiting.Token), .. tails.Select(tail => tail.WaitAsync(client, atMost, waiting.Token))];
        Task first = await Task.WhenAny(news);
        await waiting.CancelAsync();
        await Task.WhenAll(news).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await first;
    }
}
