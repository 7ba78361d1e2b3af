using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace Trainer.Contracts;

/// <summary>A job as the API and <c>-o json</c> show it. Members are added, never changed, within one schema version.</summary>
public sealed record JobView
{
    public int SchemaVersion { get; init; } = 1;
    public required JobId Id { get; init; }
    public required string Name { get; init; }
    public required JobStatus Status { get; init; }
    public string? Reason { get; init; }
    public string Project { get; init; } = "default";
    public string Pool { get; init; } = "default";
    public int Ranks { get; init; } = 1;

    /// <summary>Node of each rank of the newest attempt.</summary>
    public ImmutableArray<string> Nodes { get; init; } = [];

    public int Priority { get; init; }
    public int Attempt { get; init; }
    public RankPhase? Phase { get; init; }
    public int Step { get; init; }
    public int Steps { get; init; }
    public double? Loss { get; init; }
    public double? EvalLoss { get; init; }
    public double? TokensPerSecond { get; init; }
    public double? EtaSeconds { get; init; }
    public int? LastCheckpointStep { get; init; }
    public string? Message { get; init; }
    public required DateTimeOffset SubmittedAt { get; init; }
    public DateTimeOffset? StartedAt { get; init; }
    public DateTimeOffset? EndedAt { get; init; }

    /// <summary>The job's folder on the coordinator's machine.</summary>
    public required string Directory { get; init; }

    /// <inheritdoc cref="JobRecord.Position"/>
    public int? Position { get; init; }

    /// <inheritdoc cref="JobRecord.SlotSeconds"/>
    public double SlotSeconds { get; init; }

    /// <inheritdoc cref="JobRecord.Attempts"/>
    public ImmutableArray<AttemptSpan> Attempts { get; init; } = [];

    public ImmutableArray<HistoryEntry> History { get; init; } = [];

    public static JobView Of(JobRecord job, TrainerHome home) => new()
    {
        Id = job.Id,
        Name = job.Spec.Name,
        Status = job.Status,
        Reason = job.Reason,
        Project = job.Spec.Project,
        Pool = job.Spec.Pool,
        Ranks = job.Spec.Ranks,
        Nodes = job.Nodes,
        Priority = job.Priority,
        Attempt = job.Attempt,
        Phase = job.Status.HasAttempt() ? job.Progress?.Phase : null,
        Step = job.Progress?.Step ?? 0,
        Steps = job.Progress?.Steps ?? 0,
        Loss = job.Progress?.Loss,
        EvalLoss = job.Progress?.EvalLoss,
        TokensPerSecond = job.Progress?.TokensPerSecond,
        EtaSeconds = job.Status.HasAttempt() ? job.Progress?.EtaSeconds : null,
        LastCheckpointStep = job.LastCheckpointStep,
        Message = job.Status.HasAttempt() ? job.Progress?.Message : null,
        SubmittedAt = job.SubmittedAt,
        StartedAt = job.StartedAt,
        EndedAt = job.EndedAt,
        Directory = home.Job(job.Id).Directory,
        Position = job.Status is JobStatus.Queued ? job.Position : null,
        SlotSeconds = job.SlotSeconds,
        Attempts = job.Attempts,
        History = job.History,
    };
}

public sealed record JobList
{
    public int SchemaVersion { get; init; } = 1;
    public required ImmutableArray<JobView> Jobs { get; init; }
}

public sealed record SubmitRequest
{
    [JsonConverter(typeof(JobConfigJson.Converter))]
    public required JobConfig Config { get; init; }

    /// <summary>The same key gives the same job, however often it is sent.</summary>
    public string? IdempotencyKey { get; init; }

    public bool Paused { get; init; }
}

/// <summary>The answer to a heartbeat.</summary>
public sealed record RankReply
{
    public required RankOrder Order { get; init; }

    /// <summary>The <see cref="RankReport.Endpoint"/> of this attempt's rank 0, once it is known.</summary>
    public string? Rendezvous { get; init; }
}

public sealed record PriorityRequest
{
    public required int Priority { get; init; }
}

/// <summary>Who answers on the socket.</summary>
public sealed record CoordinatorInfo
{
    public int SchemaVersion { get; init; } = 1;
    public required string Version { get; init; }
    public required int Pid { get; init; }
}

/// <summary>Why a request was refused, one sentence with the cure.</summary>
public sealed record ApiError
{
    public required string Error { get; init; }
}

/// <summary>What <c>events -o json</c> prints.</summary>
public sealed record EventList
{
    public int SchemaVersion { get; init; } = 1;
    public required JobId Job { get; init; }

    /// <summary>Of the job, after these events.</summary>
    public required JobStatus Status { get; init; }

    public required ImmutableArray<HistoryEntry> Events { get; init; }
}
