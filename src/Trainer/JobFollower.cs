using Trainer.Contracts;

namespace Trainer.Cli;

/// <summary>
/// Shows a job until it ends: its history and the lines of its rank, which tell its progress. Outlives a killed coordinator by starting
/// another one; Ctrl-C leaves the job alone.
/// </summary>
internal sealed class JobFollower(CoordinatorLocator locator, JobId id, TextWriter output)
{
    private static readonly TimeSpan s_often = TimeSpan.FromMilliseconds(300);

    private int _seen;
    private int _attempt;
    private string? _reason;
    private LogTail[] _tails = [];

    /// <summary>The job as it ended.</summary>
    public async Task<JobView> FollowAsync(CancellationToken cancellationToken)
    {
        CoordinatorClient client = await locator.ConnectAsync(cancellationToken);
        try
        {
            while (true)
            {
                try
                {
                    JobView job = await client.GetAsync(id.Value, cancellationToken);
                    await ShowAsync(client, job, cancellationToken);
                    if (job.Status.IsTerminal())
                    {
                        return job;
                    }
                    await JobNews.WaitAsync(client, job, _tails, cancellationToken);
                }
                catch (CoordinatorException error) when (error.Status is null)
                {
                    client.Dispose();
                    await Task.Delay(s_often, cancellationToken);
                    client = await locator.ConnectAsync(cancellationToken);
                }
            }
        }
        finally
        {
            client.Dispose();
        }
    }

    private async Task ShowAsync(CoordinatorClient client, JobView job, CancellationToken cancellationToken)
    {
        bool ended = job.Status.IsTerminal();
        await ShowLinesAsync(client, _attempt != job.Attempt, cancellationToken);
        if (_attempt != job.Attempt)
        {
            _attempt = job.Attempt;
            var rank = new RankName(id, job.Attempt, 0);
            JobFiles? files = locator.FilesOf(job);
            _tails = [new LogTail(rank, LogStream.Stdout, files), new LogTail(rank, LogStream.Stderr, files)];
        }
        if (!ended)
        {
            ShowHistory(job);
        }
        await ShowLinesAsync(client, ended, cancellationToken);
        ShowHistory(job);
        if (job.Status is JobStatus.Queued && job.Reason is not null && job.Reason != _reason)
        {
            await output.WriteLineAsync($"{job.Id}: {PlainText.OneLine(job.Reason)}");
        }
        _reason = job.Reason;
        await output.FlushAsync(cancellationToken);
    }

    private void ShowHistory(JobView job)
    {
        foreach (HistoryEntry entry in job.History.Where(entry => entry.Sequence > _seen))
        {
            output.WriteLine($"{job.Id}: {PlainText.OneLine(entry.Text)}");
            _seen = entry.Sequence;
        }
    }

    private async Task ShowLinesAsync(CoordinatorClient client, bool atEnd, CancellationToken cancellationToken)
    {
        foreach (LogTail tail in _tails)
        {
            foreach (string line in await tail.NewLinesAsync(client, atEnd, cancellationToken))
            {
                await output.WriteLineAsync(line);
            }
        }
    }
}
