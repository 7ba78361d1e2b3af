using System.Collections.Immutable;
using Orleans;

namespace Trainer.Contracts;

/// <summary>A committed checkpoint as rank 0 knows it from the store.</summary>
[GenerateSerializer, Immutable, Alias("trainer.held-checkpoint")]
public sealed record HeldCheckpoint
{
    /// <summary>Optimizer steps done.</summary>
    [Id(0)] public required int Step { get; init; }

    /// <summary>Which attempt wrote it, as its folder says. Higher than the job's attempts when another job began the store.</summary>
    [Id(1)] public required int Attempt { get; init; }

    /// <summary>Null, as what follows: its manifest cannot be read.</summary>
    [Id(2)] public DateTimeOffset? CommittedAt { get; init; }

    /// <summary>Of all its files.</summary>
    [Id(3)] public long? Bytes { get; init; }

    /// <summary>The checksum that ends its manifest.</summary>
    [Id(4)] public string? Manifest { get; init; }

    /// <summary>Mean loss on the held-out data, when evaluated and finite.</summary>
    [Id(5)] public double? EvalLoss { get; init; }

    /// <summary>When every file was last found as it was written.</summary>
    [Id(6)] public DateTimeOffset? VerifiedAt { get; init; }

    /// <summary>Why the store has it marked as damaged; null: it has not.</summary>
    [Id(7)] public string? Quarantined { get; init; }

    /// <summary>Retention let it go of late: told for a while, because it may have come and gone between two reports.</summary>
    [Id(8)] public bool Removed { get; init; }
}

/// <summary>
/// What a store holds of a job, told with every report of rank 0 because any report may be lost. Complete, but for a store that
/// keeps very many: then the newest and the best, and how far back the others reach.
/// </summary>
[GenerateSerializer, Immutable, Alias("trainer.checkpoint-report")]
public sealed record CheckpointReport
{
    /// <summary>Checkpoints that are named at most, besides the best and those that were removed of late.</summary>
    public const int MostHeld = 32;

    /// <summary>Grows with each change within an attempt: with the attempt it names one state of the store.</summary>
    [Id(0)] public required int Revision { get; init; }

    /// <summary>What opens the store: a directory of the rank's machine, or azblob://CONTAINER/PREFIX.</summary>
    [Id(1)] public required string Store { get; init; }

    [Id(2)] public required ImmutableArray<HeldCheckpoint> Held { get; init; }

    /// <summary>Of this step and later ones none is left out.</summary>
    [Id(3)] public int From { get; init; }

    /// <summary>None that is left out is of an earlier step.</summary>
    [Id(4)] public int Oldest { get; init; }
}

/// <summary>Persisted by number and sent by name: members are added, never changed.</summary>
[GenerateSerializer, Alias("trainer.checkpoint-status")]
public enum CheckpointStatus
{
    Committed = 0,

    /// <summary>Found damaged: never used, never removed.</summary>
    Quarantined = 1,

    /// <summary>Retention let it go.</summary>
    Removed = 2,
}

/// <summary>What is known of one checkpoint. Members are added, never changed.</summary>
[GenerateSerializer, Immutable, Alias("trainer.checkpoint-entry")]
public sealed record CheckpointEntry
{
    [Id(0)] public required int Step { get; init; }

    /// <inheritdoc cref="HeldCheckpoint.Attempt"/>
    [Id(1)] public required int Attempt { get; init; }

    [Id(2)] public CheckpointStatus Status { get; init; }

    /// <summary>Why it is quarantined.</summary>
    [Id(3)] public string? Reason { get; init; }

    /// <summary>When it was quarantined or found removed.</summary>
    [Id(4)] public DateTimeOffset? ChangedAt { get; init; }

    [Id(5)] public DateTimeOffset? CommittedAt { get; init; }
    [Id(6)] public long? Bytes { get; init; }

    /// <inheritdoc cref="HeldCheckpoint.Manifest"/>
    [Id(7)] public string? Manifest { get; init; }

    [Id(8)] public double? EvalLoss { get; init; }

    /// <inheritdoc cref="HeldCheckpoint.VerifiedAt"/>
    [Id(9)] public DateTimeOffset? VerifiedAt { get; init; }

    /// <summary>Has the lowest evaluation loss of those that can be used.</summary>
    [Id(10)] public bool Best { get; init; }
}

/// <summary>Everything that is known of a job's checkpoints.</summary>
[GenerateSerializer, Immutable, Alias("trainer.checkpoint-catalogue")]
public sealed record CheckpointCatalogue
{
    /// <summary>The newest attempt of the job that reported; what an older one says no longer counts.</summary>
    [Id(0)] public int Attempt { get; init; }

    /// <summary>The newest <see cref="CheckpointReport.Revision"/> of that attempt.</summary>
    [Id(1)] public int Revision { get; init; }

    /// <inheritdoc cref="CheckpointReport.Store"/>
    [Id(2)] public string? Store { get; init; }

    /// <summary>By step and attempt.</summary>
    [Id(3)] public ImmutableArray<CheckpointEntry> Entries { get; init; } = [];
}

/// <summary>What somebody found who read every file of a checkpoint.</summary>
[GenerateSerializer, Immutable, Alias("trainer.checkpoint-verdict")]
public sealed record CheckpointVerdict
{
    [Id(0)] public required int Attempt { get; init; }

    /// <summary>What is damaged; null: nothing.</summary>
    [Id(1)] public string? Damage { get; init; }
}

/// <summary>What <c>checkpoints list -o json</c> prints.</summary>
public sealed record CheckpointList
{
    public int SchemaVersion { get; init; } = 1;
    public required JobId Job { get; init; }

    /// <summary>Null before a rank has reported.</summary>
    public string? Store { get; init; }

    public required ImmutableArray<CheckpointEntry> Checkpoints { get; init; }
}
