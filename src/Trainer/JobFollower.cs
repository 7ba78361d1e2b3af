using Trainer.Contracts;

namespace Trainer.Cli;

/// <summary>
/// Shows a job until it ends: its history and the lines of its rank, which tell its progress. Outlives a killed coordinator by starting
/// another one; Ctrl-C leaves the job alone.
/// </summary>
internal sealed class JobFollower(LocalCoordinator local, JobId id, TextWriter output)
{
    private static readonly TimeSpan s_often = TimeSpan.FromMilliseconds(300);

    private readonly JobFiles _files = local.Home.Job(id);
    private int _seen;
    private int _attempt;
    private string? _reason;
    private LogTail[] _tails = [];

    /// <summary>The job as it ended.</summary>
    public async Task<JobView> FollowAsync(CancellationToken cancellationToken)
    {
        CoordinatorClient client = await local.ConnectAsync(cancellationToken);
        try
        {
            while (true)
            {
                JobView job;
                try
                {
                    job = await client.GetAsync(id.Value, cancellationToken);
                }
                catch (CoordinatorException error) when (error.Status is null)
                {
                    client.Dispose();
                    client = await local.ConnectAsync(cancellationToken);
                    continue;
                }
                Show(job);
                if (job.Status.IsTerminal())
                {
                    return job;
                }
                await Task.Delay(s_often, cancellationToken);
            }
        }
        finally
        {
            client.Dispose();
        }
    }

    private void Show(JobView job)
    {
        bool ended = job.Status.IsTerminal();
        ShowLines(_attempt != job.Attempt || ended);
        if (_attempt != job.Attempt)
        {
            _attempt = job.Attempt;
            AttemptFiles files = _files.Attempt(job.Attempt);
            _tails = [new LogTail(files.Stdout), new LogTail(files.Stderr)];
        }
        if (!ended)
        {
            ShowHistory(job);
        }
        ShowLines(ended);
        ShowHistory(job);
        if (job.Status is JobStatus.Queued && job.Reason is not null && job.Reason != _reason)
        {
            output.WriteLine($"{job.Id}: {job.Reason}");
        }
        _reason = job.Reason;
        output.Flush();
    }

    private void ShowHistory(JobView job)
    {
        foreach (HistoryEntry entry in job.History.Where(entry => entry.Sequence > _seen))
        {
            output.WriteLine($"{job.Id}: {entry.Text}");
            _seen = entry.Sequence;
        }
    }

    private void ShowLines(bool atEnd)
    {
        foreach (string line in _tails.SelectMany(tail => tail.NewLines(atEnd)))
        {
            output.WriteLine(line);
        }
    }
}
