using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace Trainer.Contracts;

/// <summary>A job in brief: a row of a list that may hold thousands. What is not there is null, or zero.</summary>
public sealed record JobRow
{
    public required JobId Id { get; init; }
    public required string Name { get; init; }
    public required JobStatus Status { get; init; }
    public required string Project { get; init; }
    public required string Pool { get; init; }
    public required DateTimeOffset SubmittedAt { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Reason { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? Position { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public int Ranks { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public int Priority { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public int Attempt { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public RankPhase? Phase { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public int Step { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public int Steps { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? Loss { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? EvalLoss { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? TokensPerSecond { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? EtaSeconds { get; init; }

    /// <inheritdoc cref="JobRecord.SlotSeconds"/>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public double SlotSeconds { get; init; }

    /// <summary>Of the attempt that goes on.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public DateTimeOffset? AttemptStartedAt { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public DateTimeOffset? EndedAt { get; init; }

    public static JobRow Of(JobRecord job)
    {
        bool runs = job.Status.HasAttempt();
        return new JobRow
        {
            Id = job.Id,
            Name = job.Spec.Name,
            Status = job.Status,
            Project = job.Spec.Project,
            Pool = job.Spec.Pool,
            SubmittedAt = job.SubmittedAt,
            Reason = job.Reason,
            Position = job.Status is JobStatus.Queued ? job.Position : null,
            Ranks = job.Spec.Ranks,
            Priority = job.Priority,
            Attempt = job.Attempt,
            Phase = runs ? job.Progress?.Phase : null,
            Step = job.Progress?.Step ?? 0,
            Steps = job.Progress?.Steps ?? 0,
            Loss = Finite(job.Progress?.Loss),
            EvalLoss = Finite(job.Progress?.EvalLoss),
            TokensPerSecond = runs ? Finite(job.Progress?.TokensPerSecond) : null,
            EtaSeconds = runs ? Finite(job.Progress?.EtaSeconds) : null,
            SlotSeconds = job.SlotSeconds,
            AttemptStartedAt = runs && job.Attempts is [.., { EndedAt: null } last] ? last.StartedAt : null,
            EndedAt = job.EndedAt,
        };
    }

    private static double? Finite(double? value) => value is { } number && double.IsFinite(number) ? number : null;
}

/// <summary>A rank of the newest attempt of a job, as its node last said.</summary>
public sealed record RankView
{
    public required int Rank { get; init; }
    public required string Node { get; init; }
    public bool Alive { get; init; }
    public RankPhase? Phase { get; init; }
    public int Step { get; init; }

    /// <inheritdoc cref="RankReport.Activity"/>
    public string? Activity { get; init; }

    /// <summary>Since the node was last told by the rank.</summary>
    public double? SilentSeconds { get; init; }

    public SlotUse? Use { get; init; }

    /// <summary>How it ended.</summary>
    public string? Ending { get; init; }
}

public sealed record RankList
{
    public int SchemaVersion { get; init; } = 1;
    public required JobId Job { get; init; }
    public required int Attempt { get; init; }
    public required ImmutableArray<RankView> Ranks { get; init; }
}

/// <summary>The metrics of a job, thinned out so that they fit a screen: a point stands for all steps of its bucket.</summary>
public sealed record MetricsSeries
{
    public int SchemaVersion { get; init; } = 1;
    public required JobId Job { get; init; }

    /// <summary>Reported steps in all.</summary>
    public required int Total { get; init; }

    /// <summary>First and last of them; of those from which these points are made too when nothing else was asked for.</summary>
    public long First { get; init; }

    public long Last { get; init; }

    /// <summary>Reported steps that a point stands for; 1: these are all.</summary>
    public required int Bucket { get; init; }

    /// <summary>The last step of each bucket.</summary>
    public required ImmutableArray<long> Steps { get; init; }

    /// <summary>When that was, in seconds since 1970.</summary>
    public required ImmutableArray<double> Times { get; init; }

    /// <summary>By name of the metric, in the order in which they came.</summary>
    public required ImmutableArray<MetricSeries> Metrics { get; init; }

    /// <summary>Where an attempt went on after another: its first reported step.</summary>
    public ImmutableArray<SeriesStart> Starts { get; init; } = [];
}

public sealed record MetricSeries
{
    public required string Name { get; init; }

    /// <summary>Means over buckets; null where there is no number.</summary>
    public required ImmutableArray<float?> Mean { get; init; }

    /// <summary>Smallest of each bucket; null when a bucket is one step.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public ImmutableArray<float?>? Low { get; init; }

    /// <summary>Largest of each bucket.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public ImmutableArray<float?>? High { get; init; }
}

/// <param name="Time">In seconds since 1970.</param>
public sealed record SeriesStart(long Step, double Time);
