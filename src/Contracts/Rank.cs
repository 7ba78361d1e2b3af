using System.Text.Json;
using Orleans;

namespace Trainer.Contracts;

[GenerateSerializer, Alias("trainer.rank-phase")]
public enum RankPhase { Loading, Preparing, Training, Evaluating, Saving, Exporting }

/// <summary>What a rank tells about itself, about once a second from a thread of its own; silence of 60 s ends the attempt.</summary>
[GenerateSerializer, Immutable, Alias("trainer.rank-report")]
public sealed record RankReport
{
    [Id(0)] public required int Attempt { get; init; }
    [Id(1)] public required int Pid { get; init; }
    [Id(2)] public RankPhase Phase { get; init; }

    /// <summary>Optimizer steps done.</summary>
    [Id(3)] public int Step { get; init; }

    /// <summary>Optimizer steps in all; 0 while unknown.</summary>
    [Id(4)] public int Steps { get; init; }

    [Id(5)] public double? Loss { get; init; }
    [Id(6)] public double? EvalLoss { get; init; }
    [Id(7)] public double? TokensPerSecond { get; init; }
    [Id(8)] public double? EtaSeconds { get; init; }

    /// <summary>Step of the newest committed checkpoint.</summary>
    [Id(9)] public int? LastCheckpointStep { get; init; }

    /// <summary>A line for a person, such as "reading train.jsonl".</summary>
    [Id(10)] public string? Message { get; init; }

    [Id(11)] public int Rank { get; init; }

    /// <summary>Rank 0 of several: the "host:port" at which the others meet it.</summary>
    [Id(12)] public string? Endpoint { get; init; }

    /// <summary>
    /// Grows with every sign of forward movement (micro-batch, evaluated batch, sampled token, bytes uploaded or exported) and
    /// never otherwise: a rank that waits for another stands still.
    /// </summary>
    [Id(13)] public long Ticks { get; init; }

    /// <summary>Where in the step it is, such as "step 12: all-reduce of gradients".</summary>
    [Id(14)] public string? Activity { get; init; }

    /// <summary>Rank 0: what the store holds, once it has looked.</summary>
    [Id(15)] public CheckpointReport? Checkpoints { get; init; }

    /// <summary>What is wrong while the training goes on, such as a full disk or a store that does not answer.</summary>
    [Id(16)] public string? Trouble { get; init; }

    /// <summary>Of the newest step, as <see cref="Loss"/> is.</summary>
    [Id(20)] public double? LearningRate { get; init; }

    /// <summary>Global L2 norm of the gradients before clipping.</summary>
    [Id(21)] public double? GradNorm { get; init; }

    /// <summary>Rank 0: which newer checkpoints the attempt refused when it began, why, and from where it goes on; null: none.</summary>
    [Id(22)] public string? Setback { get; init; }
}

/// <summary>The answer to a report.</summary>
[GenerateSerializer, Alias("trainer.rank-order")]
public enum RankOrder
{
    Continue = 0,

    /// <summary>Save a checkpoint, then exit with the outcome cancelled.</summary>
    Stop = 1,

    /// <summary>Another attempt owns the job: exit at once and commit nothing.</summary>
    Fenced = 2,
}

[GenerateSerializer, Alias("trainer.rank-outcome")]
public enum RankOutcome { Succeeded, Failed, Cancelled, Interrupted }

/// <summary>Decides whether another attempt makes sense.</summary>
[GenerateSerializer, Alias("trainer.failure-class")]
public enum FailureClass
{
    /// <summary>Bad configuration or data: another attempt ends the same way.</summary>
    User = 0,

    /// <summary>Killed, or the machine, GPU or store failed.</summary>
    Infrastructure = 1,

    Unknown = 2,
}

/// <summary>How an attempt ended, written by the rank as its last act.</summary>
[GenerateSerializer, Immutable, Alias("trainer.rank-result")]
public sealed record RankResult
{
    [Id(0)] public required RankOutcome Outcome { get; init; }

    /// <summary>Of a failure only.</summary>
    [Id(1)] public FailureClass? FailureClass { get; init; }

    /// <summary>One sentence with the cure.</summary>
    [Id(2)] public string? Message { get; init; }

    [Id(3)] public int Step { get; init; }
    [Id(4)] public double? Loss { get; init; }

    /// <summary>Step of the newest committed checkpoint.</summary>
    [Id(5)] public int? LastCheckpointStep { get; init; }

    /// <inheritdoc cref="RankReport.Checkpoints"/>
    [Id(6)] public CheckpointReport? Checkpoints { get; init; }

    /// <summary>Of a failure: the ranks lost each other, so that what went wrong first is another rank's to tell.</summary>
    [Id(7)] public bool LostOthers { get; init; }

    /// <inheritdoc cref="RankReport.EvalLoss"/>
    [Id(8)] public double? EvalLoss { get; init; }

    /// <inheritdoc cref="RankReport.Steps"/>
    [Id(9)] public int Steps { get; init; }

    /// <inheritdoc cref="RankReport.Setback"/>
    [Id(10)] public string? Setback { get; init; }

    /// <summary>Whole or not at all: a reader never sees half a result.</summary>
    public void Write(string path)
    {
        string partial = path + ".partial";
        using (FileStream file = File.Create(partial))
        {
            JsonSerializer.Serialize(file, this, ContractsJson.Default.RankResult);
            file.Flush(flushToDisk: true);
        }
        File.Move(partial, path, overwrite: true);
    }

    /// <summary>Null when there is none.</summary>
    /// <exception cref="JsonException">The file is no result.</exception>
    public static RankResult? Read(string path)
    {
        if (!File.Exists(path))
        {
            return null;
        }
        using FileStream file = File.OpenRead(path);
        return JsonSerializer.Deserialize(file, ContractsJson.Default.RankResult);
    }
}
