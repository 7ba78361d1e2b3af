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
    private const int AttemptsKept = 100;
    private const int MaxPauseSeconds = 60;

    public static JobRecord Create(JobSpec spec, DateTimeOffset now)
    {
        var job = new JobRecord { Spec = spec, Status = spec.Paused ? Paused : Queued, SubmittedAt = now };
        return Note(job, now, spec.Paused ? "submitted, paused until it is resumed" : "submitted");
    }

    public static (JobRecord Job, ImmutableArray<JobEffect> Effects) Apply(JobRecord job, JobEvent e) => (job.Status, e) switch
    {
        (_, AttemptEvent old) when old.Attempt != job.Attempt || !job.Status.HasAttempt() => (job, []),

        (_, StoreWasSlow slow) => (Note(job, e.At, $"the coordinator's database was locked or slow for {slow.Took.TotalSeconds:0} s"), []),

        (Queued, RoomMissing missing) => (job with { Reason = missing.Reason, Position = missing.Position }, []),
        (Queued, RoomGranted granted) => Start(job, granted),
        (Retrying, RetryDue) => (job with { Status = Queued, RetryAt = null }, []),

        (Starting, RanksStarted) => (job with { Status = Running, Reason = null }, []),
        (_, RankReported reported) => (Report(job, reported.Report, e.At), []),
        (Starting or Running, HangFound hang) when job.HungAt is null =>
            (Note(job with { HungAt = e.At, Reason = hang.Message }, e.At, $"{hang.Message}; taking the stacks of all ranks"), []),
        (_, NodeFellSilent silent) when job.SilentNode is null =>
            (Note(job with { SilentNode = silent.Node, Reason = $"node {silent.Node} does not answer; its ranks may go on" }, e.At,
                $"node {silent.Node} does not answer; waiting for it"), []),
        (_, NodeAnswered back) when job.SilentNode == back.Node =>
            (Note(job with { SilentNode = null, Reason = StandingReason(job) }, e.At, $"node {back.Node} answers again"), []),

        (_, CoordinatorReplaced) => (Note(job, e.At, "the coordinator was started again; the ranks may have gone on"), []),
        (_, TroubleChanged trouble) when job.Trouble != trouble.Trouble => Change(job, trouble),

        (_, RankEnded { Result.Outcome: RankOutcome.Succeeded } ended) => End(Report(job, ended.Result, e.At), Succeeded, e.At, null, Describe(ended.Result)),
        (Stopping, RankEnded ended) => Stopped(Report(job, ended.Result, e.At), e.At, Describe(ended.Result, job.LastCheckpointStep)),
        (Stopping, RankLost lost) => Stopped(job, e.At, lost.Message),
        (_, RankEnded { Result.Outcome: RankOutcome.Failed } ended) => Fail(Report(job, ended.Result, e.At), e.At,
            ended.Result.FailureClass ?? FailureClass.Unknown, ended.Result.Message ?? "the rank failed without a message", []),
        (_, RankEnded ended) => Fail(Report(job, ended.Result, e.At), e.At, FailureClass.Infrastructure, ended.Result.Message ?? "the rank was interrupted", []),
        (_, RankLost lost) => Fail(job, e.At, lost.Class, lost.Message, lost.Nodes.IsDefault ? [] : lost.Nodes),

        (Paused or Queued or Retrying, CancelAsked) => End(job, Cancelled, e.At, "cancelled", job.Attempt == 0 ? "cancelled before an attempt ran" : "cancelled between two attempts"),
        (Starting or Running, CancelAsked) => AskToStop(job, e.At, StopIntent.Cancel, "asked to stop"),
        // While it stops, the last wish holds.
        (Stopping, CancelAsked) when job.StopIntent is not StopIntent.Cancel => Intend(job, StopIntent.Cancel, e.At, "cancelled"),
        (Stopping, PauseAsked) when job.StopIntent is not StopIntent.Pause => Intend(job, StopIntent.Pause, e.At, "asked to pause"),
        (Stopping, ResumeAsked) when job.StopIntent is not StopIntent.Requeue =>
            Intend(Renew(job), StopIntent.Requeue, e.At, "resumed: goes on once it has stopped"),
        (Queued or Retrying, PauseAsked) => (Note(job with { Status = Paused, Reason = "paused", RetryAt = null }, e.At, "paused"), [new Vacate()]),
        (Starting or Running, PauseAsked) => AskToStop(job, e.At, StopIntent.Pause, "asked to pause"),
        (Starting or Running, NodeDraining draining) => AskToStop(job, e.At, StopIntent.Requeue, $"node {draining.Node} is drained: asked to stop, to go on elsewhere"),

        (Paused or Failed or Cancelled, ResumeAsked) =>
            (Note(Renew(job) with { Status = Queued, Reason = null, EndedAt = null, StopAskedAt = null }, e.At, "resumed"), []),

        (not (Succeeded or Failed or Cancelled), PriorityAsked asked) when asked.Priority != job.Priority =>
            (Note(job with { PrioritySet = asked.Priority }, e.At, $"priority {asked.Priority}"), []),

        _ => (job, []),
    };

    private static (JobRecord, ImmutableArray<JobEffect>) Start(JobRecord job, RoomGranted room)
    {
        int attempt = job.Attempt + 1;
        JobRecord next = job with
        {
            Status = Starting,
            Attempt = attempt,
            Nodes = room.Nodes,
            Progress = null,
            HungAt = null,
            SilentNode = null,
            Trouble = null,
            StartedAt = job.StartedAt ?? room.At,
            Reason = "starting",
            Position = null,
            Attempts = [.. job.Attempts.TakeLast(AttemptsKept - 1), new AttemptSpan { Attempt = attempt, StartedAt = room.At }],
        };
        return (Note(next, room.At, $"attempt {attempt} starts on {Where(room.Nodes)}"), [new StartRanks(attempt)]);
    }

    private static string Where(ImmutableArray<string> nodes) =>
        string.Join(", ", nodes.GroupBy(node => node).Select(group => group.Count() == 1 ? group.Key : $"{group.Key} ({group.Count()} ranks)"));

    private static (JobRecord, ImmutableArray<JobEffect>) AskToStop(JobRecord job, DateTimeOffset now, StopIntent intent, string text) =>
        Intend(job with { Status = Stopping, StopAskedAt = now }, intent, now, text);

    private static (JobRecord, ImmutableArray<JobEffect>) Intend(JobRecord job, StopIntent intent, DateTimeOffset now, string text)
    {
        JobRecord next = job with { StopIntent = intent };
        return (Note(next with { Reason = StandingReason(next) }, now, text), []);
    }

    /// <summary>A person wants it to go on: what failed before no longer counts.</summary>
    private static JobRecord Renew(JobRecord job) => job with { Failures = new FailureCounts(), Avoid = [] };

    private static (JobRecord, ImmutableArray<JobEffect>) Stopped(JobRecord job, DateTimeOffset now, string detail) => job.StopIntent switch
    {
        StopIntent.Pause => (Note(Close(job, now, $"paused: {detail}") with { Status = Paused, Reason = "paused", StopAskedAt = null }, now, $"paused: {detail}"),
            [new KillRanks(job.Attempt), new Vacate()]),
        StopIntent.Requeue => (Note(Close(job, now, $"stopped, goes on: {detail}") with { Status = Queued, Reason = null, StopAskedAt = null }, now, $"stopped, goes on: {detail}"),
            [new KillRanks(job.Attempt), new Vacate()]),
        _ => End(job, Cancelled, now, "cancelled", detail),
    };

    private static (JobRecord, ImmutableArray<JobEffect>) Change(JobRecord job, TroubleChanged changed)
    {
        JobRecord next = job with { Trouble = changed.Trouble };
        return (Note(job.SilentNode is null ? next with { Reason = StandingReason(next) } : next, changed.At, changed.Trouble ?? $"over: {job.Trouble}"), []);
    }

    private static string? StandingReason(JobRecord job) => (job.Status, job.StopIntent) switch
    {
        (Stopping, StopIntent.Cancel) => "ends after a last checkpoint",
        (Stopping, StopIntent.Pause) => "pauses after a last checkpoint",
        (Stopping, _) => "stops after a last checkpoint, then goes on",
        _ => job.Trouble ?? job.Progress?.Setback,
    };

    private static JobRecord Report(JobRecord job, RankReport report, DateTimeOffset now)
    {
        string? setback = (report.Setback == job.Progress?.Setback ? null : report.Setback) ?? Missing(job, report);
        JobRecord next = job with
        {
            Status = job.Status is Starting ? Running : job.Status,
            Progress = report,
            // The newest that was heard of may be one that was refused, or is missing.
            LastCheckpointStep = report.LastCheckpointStep ?? (setback is null ? job.LastCheckpointStep : null),
        };
        if (job.Status is Starting || (setback is not null && job is { HungAt: null, SilentNode: null }))
        {
            next = next with { Reason = StandingReason(next) ?? setback };
        }
        return setback is null ? next : Note(next, now, setback);
    }

    /// <summary>A rank that trains has restored what there was: files that are gone, or that stay on the machine of an earlier attempt, were not found.</summary>
    private static string? Missing(JobRecord job, RankReport report) =>
        report.Phase >= RankPhase.Training && report.Setback is null && job.LastCheckpointStep is { } known && (report.LastCheckpointStep ?? 0) < known
            ? $"the checkpoint of step {known} was not found; goes on from step {report.LastCheckpointStep ?? 0}" : null;

    /// <summary>The result knows better than the last report, and of a short attempt there may be none.</summary>
    private static JobRecord Report(JobRecord job, RankResult result, DateTimeOffset now)
    {
        RankReport last = job.Progress ?? new RankReport { Attempt = job.Attempt, Pid = 0 };
        return Report(job, last with
        {
            // An attempt that is stopped while it loads goes on from nothing, and loses nothing.
            Step = Math.Max(last.Step, result.Step > 0 || last.Phase >= RankPhase.Training ? result.Step : job.LastCheckpointStep ?? 0),
            Steps = Math.Max(result.Steps, last.Steps),
            Loss = result.Loss ?? last.Loss,
            EvalLoss = result.EvalLoss ?? last.EvalLoss,
            LastCheckpointStep = result.LastCheckpointStep ?? last.LastCheckpointStep,
            Setback = result.Setback ?? last.Setback,
        }, now);
    }

    private static (JobRecord, ImmutableArray<JobEffect>) Fail(
        JobRecord job, DateTimeOffset now, FailureClass kind, string message, ImmutableArray<string> suspects)
    {
        bool further = job.LastCheckpointStep > job.Failures.CheckpointStep;
        FailureCounts before = further ? new FailureCounts { CheckpointStep = job.LastCheckpointStep!.Value } : job.Failures;
        FailureCounts counts = kind switch
        {
            FailureClass.Infrastructure => before with { Infrastructure = before.Infrastructure + 1 },
            FailureClass.Unknown => before with { Unknown = before.Unknown + 1 },
            _ => before,
        };
        job = job with { Failures = counts, Avoid = [.. (further ? [] : job.Avoid).Union(suspects)] };
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
        return (Note(Close(job, now, message) with { Status = Retrying, RetryAt = now + pause, Reason = next }, now, next), [new KillRanks(job.Attempt), new Vacate()]);
    }

    private static (JobRecord, ImmutableArray<JobEffect>) End(JobRecord job, JobStatus status, DateTimeOffset now, string? reason, string detail)
    {
        string text = detail.StartsWith(Spelling.Of(status), StringComparison.Ordinal) ? detail : $"{Spelling.Of(status)}: {detail}";
        JobRecord next = Close(job, now, text) with { Status = status, Reason = reason, EndedAt = now, RetryAt = null };
        return (Note(next, now, text), [new KillRanks(job.Attempt), new Vacate(), new Retire()]);
    }

    /// <summary>The attempt that goes on, if one does, ends here.</summary>
    private static JobRecord Close(JobRecord job, DateTimeOffset now, string ending) => job.Attempts is [.. var before, { EndedAt: null } last]
        ? job with
        {
            Attempts = [.. before, last with { EndedAt = now, Ending = ending }],
            SlotSeconds = job.SlotSeconds + (Math.Max(0, (now - last.StartedAt).TotalSeconds) * job.Spec.Ranks),
        }
        : job;

    /// <param name="saved">Step of the job's newest checkpoint, if it is to go on from that.</param>
    private static string Describe(RankResult result, int? saved = null)
    {
        string at = result.Step == 0 && saved > 0 ? $"before it went on from step {saved}" : $"at step {result.Step}" + (result.Loss is { } loss ? string.Create(CultureInfo.InvariantCulture, $", loss {loss:0.####}") : "");
        return result.Message is null ? at : $"{at}, {result.Message}";
    }

    private static JobRecord Note(JobRecord job, DateTimeOffset now, string text)
    {
        var entry = new HistoryEntry { Sequence = job.History is [.., var last] ? last.Sequence + 1 : 1, At = now, Text = text };
        ImmutableArray<HistoryEntry> history = job.History.Add(entry);
        return job with { History = history.Length > HistoryLength ? history[^HistoryLength..] : history };
    }
}
