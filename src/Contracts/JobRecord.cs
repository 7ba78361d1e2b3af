using System.Collections.Immutable;
using Orleans;

namespace Trainer.Contracts;

/// <summary>What a person asked for. Never changes.</summary>
[GenerateSerializer, Immutable, Alias("trainer.job-spec")]
public sealed record JobSpec
{
    [Id(0)] public required JobId Id { get; init; }
    [Id(1)] public required string Name { get; init; }

    /// <summary>Larger runs earlier.</summary>
    [Id(2)] public int Priority { get; init; }

    /// <summary>The <see cref="JobConfig"/> as canonical JSON.</summary>
    [Id(3)] public required string Config { get; init; }

    /// <summary>Waits for a resume before its first attempt.</summary>
    [Id(4)] public bool Paused { get; init; }

    /// <summary>Whose job it is: tokens of another project don't see it.</summary>
    [Id(5)] public string Project { get; init; } = "default";

    [Id(6)] public string Pool { get; init; } = "default";

    /// <summary>Processes that train together, a slot each.</summary>
    [Id(7)] public int Ranks { get; init; } = 1;

    /// <summary>The span (W3C trace context) below which telemetry tells what happens to the job.</summary>
    [Id(8)] public string? TraceParent { get; init; }

    /// <summary>Of one submission and no other: two that draw the same id must not be taken for one. Null: submitted to an older coordinator.</summary>
    [Id(9)] public string? Submission { get; init; }
}

/// <summary>Why ranks were asked to stop.</summary>
[GenerateSerializer, Alias("trainer.stop-intent")]
public enum StopIntent
{
    Cancel = 0,

    /// <summary>A person wants to go on later.</summary>
    Pause = 1,

    /// <summary>The job goes on: its node is drained, or a person resumed it while it stopped.</summary>
    Requeue = 2,
}

/// <summary>A process for ever: pids are used again, a pid with its start time (clock ticks since boot) is not.</summary>
[GenerateSerializer, Immutable, Alias("trainer.process-identity")]
public sealed record ProcessIdentity
{
    [Id(0)] public required int Pid { get; init; }
    [Id(1)] public required long StartTime { get; init; }
}

/// <summary>Failed attempts by class since the last attempt that got further.</summary>
[GenerateSerializer, Immutable, Alias("trainer.failure-counts")]
public sealed record FailureCounts
{
    [Id(0)] public int Infrastructure { get; init; }
    [Id(1)] public int Unknown { get; init; }

    /// <summary>The newest checkpoint when it last failed: a later one shows progress and gives the budgets back.</summary>
    [Id(2)] public int CheckpointStep { get; init; }
}

/// <summary>One line of a job's history.</summary>
[GenerateSerializer, Immutable, Alias("trainer.history-entry")]
public sealed record HistoryEntry
{
    /// <summary>Counts up from 1 within a job, so that a reader knows what it has seen.</summary>
    [Id(0)] public required int Sequence { get; init; }

    [Id(1)] public required DateTimeOffset At { get; init; }
    [Id(2)] public required string Text { get; init; }
}

/// <summary>When one attempt ran and how it ended.</summary>
[GenerateSerializer, Immutable, Alias("trainer.attempt-span")]
public sealed record AttemptSpan
{
    [Id(0)] public required int Attempt { get; init; }
    [Id(1)] public required DateTimeOffset StartedAt { get; init; }

    /// <summary>Null: it goes on.</summary>
    [Id(2)] public DateTimeOffset? EndedAt { get; init; }

    /// <summary>For a person.</summary>
    [Id(3)] public string? Ending { get; init; }
}

/// <summary>When things last happened to a job: the beginnings of what telemetry tells as durations, kept so that they outlive a coordinator.</summary>
[GenerateSerializer, Immutable, Alias("trainer.job-times")]
public sealed record JobTimes
{
    /// <summary>Since when it waits for room, or when it last began to.</summary>
    [Id(0)] public DateTimeOffset? QueuedAt { get; init; }

    /// <summary>Start of the newest attempt.</summary>
    [Id(1)] public DateTimeOffset? AttemptAt { get; init; }

    /// <summary>That attempt's first optimizer step.</summary>
    [Id(2)] public DateTimeOffset? FirstStepAt { get; init; }

    /// <summary>When the newest checkpoint was heard of.</summary>
    [Id(3)] public DateTimeOffset? CheckpointAt { get; init; }

    /// <summary>End of the attempt from which the job recovers; null once an attempt has made a step.</summary>
    [Id(4)] public DateTimeOffset? FailedAt { get; init; }
}

/// <summary>The persisted truth about one job.</summary>
[GenerateSerializer, Immutable, Alias("trainer.job-record")]
public sealed record JobRecord
{
    [Id(0)] public required JobSpec Spec { get; init; }
    [Id(1)] public required JobStatus Status { get; init; }

    /// <summary>Why it is in this status, for a person.</summary>
    [Id(2)] public string? Reason { get; init; }

    /// <summary>Counts up from 1 and is the fencing token of every side effect; 0 before the first attempt.</summary>
    [Id(3)] public int Attempt { get; init; }

    /// <summary>Node of each rank of the attempt; kept after its end, where its files are.</summary>
    [Id(16)] public ImmutableArray<string> Nodes { get; init; } = [];

    [Id(5)] public FailureCounts Failures { get; init; } = new();

    /// <summary>The last report of rank 0 of the newest attempt. Persisted now and then, not each time.</summary>
    [Id(6)] public RankReport? Progress { get; init; }

    [Id(7)] public int? LastCheckpointStep { get; init; }
    [Id(8)] public required DateTimeOffset SubmittedAt { get; init; }

    /// <summary>Start of the first attempt.</summary>
    [Id(9)] public DateTimeOffset? StartedAt { get; init; }

    [Id(10)] public DateTimeOffset? EndedAt { get; init; }

    /// <summary>When the next attempt is due (retrying).</summary>
    [Id(11)] public DateTimeOffset? RetryAt { get; init; }

    /// <summary>When the rank was asked to stop (stopping).</summary>
    [Id(12)] public DateTimeOffset? StopAskedAt { get; init; }

    /// <summary>The newest entries, oldest first.</summary>
    [Id(13)] public ImmutableArray<HistoryEntry> History { get; init; } = [];

    /// <summary>What becomes of the job once its ranks have stopped (stopping).</summary>
    [Id(14)] public StopIntent StopIntent { get; init; }

    /// <summary>Nodes where attempts failed since the last one that got further.</summary>
    [Id(15)] public ImmutableArray<string> Avoid { get; init; } = [];

    /// <summary>When its ranks were found to hang; their stacks are taken before they are ended.</summary>
    [Id(17)] public DateTimeOffset? HungAt { get; init; }

    /// <summary>A node of the attempt that does not answer at the moment.</summary>
    [Id(18)] public string? SilentNode { get; init; }

    /// <summary>What a person set after the submission; null: as submitted.</summary>
    [Id(19)] public int? PrioritySet { get; init; }

    /// <summary>What is wrong while the attempt goes on.</summary>
    [Id(20)] public string? Trouble { get; init; }

    /// <summary>Its place among those that wait in its pool, from 1 (queued).</summary>
    [Id(21)] public int? Position { get; init; }

    /// <summary>The newest attempts, oldest first.</summary>
    [Id(22)] public ImmutableArray<AttemptSpan> Attempts { get; init; } = [];

    /// <summary>What attempts that have ended took: their durations times their ranks.</summary>
    [Id(23)] public double SlotSeconds { get; init; }

    [Id(30)] public JobTimes Times { get; init; } = new();

    public JobId Id => Spec.Id;

    public int Priority => PrioritySet ?? Spec.Priority;
}
