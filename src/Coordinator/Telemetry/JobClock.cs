using Trainer.Contracts;

namespace Trainer.Coordinator.Telemetry;

/// <summary>Sets a job's <see cref="JobTimes"/> after an event; a pure function.</summary>
public static class JobClock
{
    public static JobRecord Begin(JobRecord job) =>
        job.Status is JobStatus.Queued ? job with { Times = job.Times with { QueuedAt = job.SubmittedAt } } : job;

    /// <param name="before">The job before the event.</param>
    /// <param name="after">The job after the event, with the times of before.</param>
    public static JobRecord Advance(JobRecord before, JobRecord after, DateTimeOffset at)
    {
        if (before == after)
        {
            return after;
        }
        JobTimes times = before.Times;
        if (after.Status is JobStatus.Queued && before.Status is not JobStatus.Queued)
        {
            times = times with { QueuedAt = at };
        }
        if (after.Attempt != before.Attempt)
        {
            times = times with { AttemptAt = at, FirstStepAt = null };
        }
        if (after.LastCheckpointStep is not null && after.LastCheckpointStep != before.LastCheckpointStep)
        {
            times = times with { CheckpointAt = at };
        }
        // An attempt reports a loss once it has made a step of its own.
        if (times.FirstStepAt is null && before.Status.HasAttempt() && after.Progress?.Loss is not null)
        {
            times = times with { FirstStepAt = at, FailedAt = null };
        }
        if (before.Status.HasAttempt() && after.Status is JobStatus.Retrying)
        {
            times = times with { FailedAt = times.FailedAt ?? at };
        }
        return times == before.Times ? after : after with { Times = times };
    }
}
