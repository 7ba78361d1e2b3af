using System.Text.Json;

namespace Trainer.Worker.Checkpoints;

/// <summary>One tensor in host memory; the data has exactly the spec's length.</summary>
public sealed record CheckpointTensor(TensorSpec Spec, NativeBuffer Data);

/// <summary>
/// What one rank saves at one step, already copied to host memory. Whoever is given it disposes it, which releases the buffers.
/// </summary>
public sealed class CheckpointSnapshot : IDisposable
{
    /// <summary>Optimizer steps done.</summary>
    public required long Step { get; init; }

    /// <summary>Global index of the next sample.</summary>
    public required long Cursor { get; init; }

    /// <summary>Mean loss on the held-out data, if evaluated at this step.</summary>
    public double? EvaluationLoss { get; init; }

    public required IReadOnlyList<CheckpointTensor> Tensors { get; init; }

    /// <summary>Small files by name, e.g. history.jsonl.</summary>
    public IReadOnlyDictionary<string, ReadOnlyMemory<byte>> Attachments { get; init; } = new Dictionary<string, ReadOnlyMemory<byte>>();

    public void Dispose()
    {
        foreach (CheckpointTensor tensor in Tensors)
        {
            tensor.Data.Dispose();
        }
    }
}

/// <summary>Who saves: what stays the same from the start of a process to its end.</summary>
public sealed record CheckpointAuthor
{
    public required string Job { get; init; }

    /// <inheritdoc cref="CheckpointManifest.Fingerprint"/>
    public required string Fingerprint { get; init; }

    /// <summary>Which start of the job this is, from 1; higher than every earlier one (the fencing token).</summary>
    public required int Attempt { get; init; }

    public int Rank { get; init; }

    public int WorldSize { get; init; } = 1;

    public long Seed { get; init; }

    public IReadOnlyDictionary<string, string> Libraries { get; init; } = new Dictionary<string, string>();

    public required JsonElement Config { get; init; }

    /// <inheritdoc cref="CheckpointManifest.Inputs"/>
    public IReadOnlyDictionary<string, string>? Inputs { get; init; }
}

/// <summary>Moments of a save at which tests interfere. Retention: a manifest is deleted, its files not yet.</summary>
public enum CheckpointPhase { BeforeShard, MidShard, AfterShards, BeforeManifest, AfterManifest, Retention }

public sealed record CheckpointWriterOptions
{
    /// <summary>Newest checkpoints kept; the best by evaluation loss is kept besides.</summary>
    public int Keep { get; init; } = 2;

    public TimeProvider Time { get; init; } = TimeProvider.System;

    /// <summary>Called on the saving thread when the step's checkpoint is committed, by this attempt or by one before.</summary>
    public Action<CheckpointManifest>? Committed { get; init; }

    /// <summary>Called on the saving thread when retention has removed the manifest of a checkpoint.</summary>
    public Action<CheckpointManifest>? Removed { get; init; }

    /// <summary>Called on the saving thread whenever the store has taken some bytes.</summary>
    public Action? Progress { get; init; }

    /// <summary>
    /// World sizes above 1: gives this rank's files at a step and returns those of all ranks, once all have written theirs.
    /// </summary>
    public Func<long, IReadOnlyList<CheckpointFile>, CancellationToken, Task<IReadOnlyList<CheckpointFile>>>? Gather { get; init; }

    /// <summary>For fault tests.</summary>
    public Func<CheckpointPhase, ValueTask>? Phase { get; init; }
}
