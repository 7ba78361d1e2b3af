using System.Diagnostics;
using Trainer.Contracts;

namespace Trainer.Coordinator.Telemetry;

/// <summary>
/// Tells what happens to jobs: metrics, and a trace a job. Its spans lie side by side below the submission, each with its beginning
/// from the job's <see cref="JobTimes"/>, and are told when they end; so a coordinator that starts in between changes nothing.
/// </summary>
public sealed class JobTelemetry(CoordinatorMetrics metrics, LiveState live)
{
    public const string SourceName = "Trainer.Coordinator";

    private static readonly ActivitySource s_source = new(SourceName);

    /// <summary>Begins the span of a submission, below the submitter's. The job's others go below it: its trace parent is the second value.</summary>
    /// <param name="traceParent">The submitter's W3C trace context; what is none counts as none.</param>
    /// <param name="traceState">Belongs to it.</param>
    public static (Activity? Span, string Parent) Submitting(string? traceParent, string? traceState)
    {
        bool known = ActivityContext.TryParse(traceParent, traceState, isRemote: true, out ActivityContext submitter);
        // Whatever surrounds this is no part of the job's trace.
        Activity.Current = null;
        Activity? span = s_source.StartActivity("submit", ActivityKind.Server, submitter);
        // A trace can begin although nobody listens yet.
        return (span, span?.Id ?? (known ? traceParent! : $"00-{ActivityTraceId.CreateRandom()}-{ActivitySpanId.CreateRandom()}-01"));
    }

    /// <summary>The job lives in this coordinator, and is so now.</summary>
    public void Seen(JobRecord job) => live.Tell(job);

    public void Left(JobId job) => live.Forget(job);

    public void Created(JobRecord job)
    {
        metrics.Submitted(job.Spec.Pool);
        live.Tell(job);
    }

    public void DatabaseStalled() => metrics.DatabaseStalled();

    public void Stored(TimeSpan took) => metrics.Wrote("job", took);

    /// <param name="happened">What turned the job into what it is now; stored already when it matters.</param>
    public void Happened(JobRecord before, JobEvent happened, JobRecord after)
    {
        if (before == after)
        {
            return;
        }
        DateTimeOffset at = happened.At;
        JobTimes times = before.Times;
        live.Tell(after);
        if (after.Attempt != before.Attempt)
        {
            DateTimeOffset since = times.QueuedAt ?? before.SubmittedAt;
            metrics.Placed(after.Spec.Pool, at - since);
            Tell("queue", after, since, at, ("trainer.nodes", string.Join(',', after.Nodes.Distinct())));
        }
        if (after.Times.FirstStepAt is { } first && times.FirstStepAt is null && times.AttemptAt is { } started)
        {
            metrics.MadeFirstStep(first - started);
            Tell("start", after, started, first);
            if (times.FailedAt is { } failed)
            {
                metrics.Recovered(first - failed);
                Tell("recovery", after, failed, first);
            }
        }
        if (after.Times.CheckpointAt is { } saved && saved != times.CheckpointAt && (after.Times.FirstStepAt ?? times.AttemptAt) is { } begun)
        {
            // The training that it holds: since the one before, or since the attempt's first step.
            Tell("checkpoint", after, times.CheckpointAt is { } last && last > begun ? last : begun, saved, ("trainer.step", after.LastCheckpointStep));
        }
        if (after.HungAt is not null && before.HungAt is null)
        {
            metrics.Hung();
        }
        if (before.Status.HasAttempt() && !after.Status.HasAttempt())
        {
            string ending = Ending(before, happened, after);
            metrics.AttemptEnded(ending);
            Tell("attempt", after, times.AttemptAt ?? at, at, ending is "succeeded" or "stopped" ? null : ending,
                ("trainer.attempt.ending", ending), ("trainer.step", after.Progress?.Step), ("trainer.nodes", string.Join(',', before.Nodes.Distinct())));
        }
        if (after.Status.IsTerminal() && !before.Status.IsTerminal())
        {
            metrics.Ended(after.Status);
            Tell("job", after, after.SubmittedAt, at, after.Status is JobStatus.Failed ? "failed" : null,
                ("trainer.job.status", Spelling.Of(after.Status)), ("trainer.step", after.Progress?.Step));
        }
    }

    private static string Ending(JobRecord before, JobEvent happened, JobRecord after) => (after.Status, happened) switch
    {
        (JobStatus.Succeeded, _) => "succeeded",
        _ when before.Status is JobStatus.Stopping => "stopped",
        (_, RankEnded { Result.Outcome: RankOutcome.Failed } ended) => Spelling.Of(ended.Result.FailureClass ?? FailureClass.Unknown),
        (_, RankLost lost) => Spelling.Of(lost.Class),
        _ => Spelling.Of(FailureClass.Infrastructure),
    };

    private static void Tell(string name, JobRecord job, DateTimeOffset start, DateTimeOffset end, params ReadOnlySpan<(string Key, object? Value)> tags) =>
        Tell(name, job, start, end, error: null, tags);

    /// <param name="error">Marks the span as failed: what kind of error it was.</param>
    private static void Tell(string name, JobRecord job, DateTimeOffset start, DateTimeOffset end, string? error, params ReadOnlySpan<(string Key, object? Value)> tags)
    {
        if (!s_source.HasListeners())
        {
            return;
        }
        ActivityContext.TryParse(job.Spec.TraceParent, traceState: null, isRemote: true, out ActivityContext parent);
        Activity.Current = null;
        using Activity? span = s_source.StartActivity(name, ActivityKind.Internal, parent, startTime: start);
        if (span is null)
        {
            return;
        }
        Describe(span, job.Spec);
        if (job.Attempt > 0)
        {
            span.SetTag("trainer.attempt", job.Attempt);
        }
        foreach ((string key, object? value) in tags)
        {
            span.SetTag(key, value);
        }
        if (error is not null)
        {
            span.SetTag("error.type", error);
            span.SetStatus(ActivityStatusCode.Error, job.Reason);
        }
        span.SetEndTime((end > start ? end : start).UtcDateTime);
    }

    /// <summary>What every span of a job says of it.</summary>
    public static void Describe(Activity span, JobSpec job)
    {
        span.SetTag("trainer.job.id", job.Id.Value);
        span.SetTag("trainer.job.name", job.Name);
        span.SetTag("trainer.project", job.Project);
        span.SetTag("trainer.pool", job.Pool);
        span.SetTag("trainer.ranks", job.Ranks);
    }
}
