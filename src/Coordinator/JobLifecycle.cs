using System.Collections.Immutable;
using System.Globalization;
using Trainer.Contracts;
using static Trainer.Contracts.JobStatus;

namespace Trainer.Coordinator;

/// <summary>
/// All decisions about one job as a pure function. Every transition is a line; an event without a line changes nothing, such
/// as a report of an old attempt or cancelling what has ended.
/// </summary>
public static class JobLifecycle
{
    private const int InfrastructureRetries = 10;
    private const int UnknownRetries = 3;
    private const int HistoryLength = 200;
    private const int MaxPauseSeconds = 60;

    public static JobRecord Create(JobSpec spec, DateTimeOffset now)
    {
        var job = new JobRecord { Spec = spec, Status = spec.Paused ? Paused : Queued, SubmittedAt = now };
        return Note(job, now, spec.Paused ? "submitted, paused until it is resumed" : "submitted");
    }

    public static (JobRecord Job, ImmutableArray<JobEffect> Effects) Apply(JobRecord job, JobEvent e) => (job.Status, e) switch
    {
        (_, AttemptEvent old) when old.Attempt != job.Attempt || !job.Status.HasAttempt() => (job, []),

        (Queued, MachineBusy busy) => (job with { Reason = busy.Reason }, []),
        (Queued, MachineGranted) => Start(job, e.At),
        (Retrying, RetryDue) => Start(job, e.At),

        (Starting, RankStarted started) => (job with { Status = Running, Process = started.Process, Reason = null }, []),
        (Running or Stopping, RankStarted started) => (job with { Process = started.Process }, []),
        (_, RankReported reported) => (Report(job, reported.Report), []),

        (_, RankEnded { Result.Outcome: RankOutcome.Succeeded } ended) => End(Report(job, ended.Result), Succeeded, e.At, null, Describe(ended.Result)),
        (Stopping, RankEnded ended) => End(Report(job, ended.Result), Cancelled, e.At, "cancelled", Describe(ended.Result)),
        (Stopping, RankLost lost) => End(job, Cancelled, e.At, "cancelled", lost.Message),
        (_, RankEnded { Result.Outcome: RankOutcome.Failed } ended) => Fail(Report(job, ended.Result), e.At,
            ended.Result.FailureClass ?? FailureClass.Unknown, ended.Result.Message ?? "the rank failed without a message"),
        (_, RankEnded ended) => Fail(Report(job, ended.Result), e.At, FailureClass.Infrastructure, ended.Result.Message ?? "the rank was interrupted"),
        (_, RankLost lost) => Fail(job, e.At, lost.Class, lost.Message),

        (Paused or Queued or Retrying, CancelAsked) => End(job, Cancelled, e.At, "cancelled", job.Attempt == 0 ? "cancelled before an attempt ran" : "cancelled between two attempts"),
        (Starting or Running, CancelAsked) => (Note(job with { Status = Stopping, StopAskedAt = e.At, Reason = "stopping after a last checkpoint" }, e.At,
            "asked to stop"), []),

        (Paused or Failed or Cancelled, ResumeAsked) => (Note(job with
        {
            Status = Queued,
            Reason = null,
            Failures = new FailureCounts(),
            EndedAt = null,
            StopAskedAt = null,
        }, e.At, "resumed"), []),

        _ => (job, []),
    };

    private static (JobRecord, ImmutableArray<JobEffect>) Start(JobRecord job, DateTimeOffset now)
    {
        int attempt = job.Attempt + 1;
        JobRecord next = job with
        {
            Status = Starting,
            Attempt = attempt,
            Process = null,
            Progress = null,
            RetryAt = null,
            StartedAt = job.StartedAt ?? now,
            Reason = "starting",
        };
        return (Note(next, now, $"attempt {attempt} starts"), [new StartRank(attempt)]);
    }

    private static JobRecord Report(JobRecord job, RankReport report) => job with
    {
        Status = job.Status is Starting ? Running : job.Status,
        Reason = job.Status is Starting ? null : job.Reason,
        Progress = report,
        LastCheckpointStep = report.LastCheckpointStep ?? job.LastCheckpointStep,
    };

    /// <summary>The result knows the last step better than the last report does.</summary>
    private static JobRecord Report(JobRecord job, RankResult result) => job with
    {
        Progress = (job.Progress ?? new RankReport { Attempt = job.Attempt, Pid = job.Process?.Pid ?? 0 }) with
        {
            Step = Math.Max(result.Step, job.Progress?.Step ?? 0),
            Loss = result.Loss ?? job.Progress?.Loss,
        },
        LastCheckpointStep = result.LastCheckpointStep ?? job.LastCheckpointStep,
    };

    private static (JobRecord, ImmutableArray<JobEffect>) Fail(JobRecord job, DateTimeOffset now, FailureClass kind, string message)
    {
        FailureCounts before = job.LastCheckpointStep > job.Failures.CheckpointStep
            ? new FailureCounts { CheckpointStep = job.LastCheckpointStep.Value }
            : job.Failures;
        FailureCounts counts = kind switch
        {
            FailureClass.Infrastructure => before with { Infrastructure = before.Infrastructure + 1 },
            FailureClass.Unknown => before with { Unknown = before.Unknown + 1 },
            _ => before,
        };
        job = job with { Failures = counts };
        if (kind is FailureClass.User)
        {
            return End(job, Failed, now, message, message);
        }
        if (counts.Infrastructure > InfrastructureRetries || counts.Unknown > UnknownRetries)
        {
            string why = $"{message} (given up after {counts.Infrastructure + counts.Unknown} attempts without a new checkpoint)";
            return End(job, Failed, now, why, why);
        }
        var pause = TimeSpan.FromSeconds(Math.Min(MaxPauseSeconds, Math.Pow(2, counts.Infrastructure + counts.Unknown - 1)));
        string next = $"attempt {job.Attempt} ended: {message}; attempt {job.Attempt + 1} starts in {pause.TotalSeconds:0} s";
        return (Note(job with { Status = Retrying, RetryAt = now + pause, Reason = next, Process = null }, now, next), [new KillRanks(job.Attempt)]);
    }

    private static (JobRecord, ImmutableArray<JobEffect>) End(JobRecord job, JobStatus status, DateTimeOffset now, string? reason, string detail)
    {
        JobRecord next = job with { Status = status, Reason = reason, EndedAt = now, RetryAt = null, Process = null };
        string text = detail.StartsWith(Spelling.Of(status), StringComparison.Ordinal) ? detail : $"{Spelling.Of(status)}: {detail}";
        return (Note(next, now, text), [new KillRanks(job.Attempt), new Retire()]);
    }

    private static string Describe(RankResult result)
    {
        string at = $"at step {result.Step}" + (result.Loss is { } loss ? string.Create(CultureInfo.InvariantCulture, $", loss {loss:0.####}") : "");
        return result.Message is null ? at : $"{at}, {result.Message}";
    }

    private static JobRecord Note(JobRecord job, DateTimeOffset now, string text)
    {
        var entry = new HistoryEntry { Sequence = job.History is [.., var last] ? last.Sequence + 1 : 1, At = now, Text = text };
        ImmutableArray<HistoryEntry> history = job.History.Add(entry);
        return job with { History = history.Length > HistoryLength ? history[^HistoryLength..] : history };
    }
}
