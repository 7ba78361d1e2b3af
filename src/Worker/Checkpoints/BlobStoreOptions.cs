using Azure.Core.Pipeline;

namespace Trainer.Worker.Checkpoints;

/// <summary>How a <see cref="BlobStore"/> talks to its service.</summary>
public sealed record BlobStoreOptions
{
    /// <summary>The outage that a training survives.</summary>
    public static readonly TimeSpan Training = TimeSpan.FromMinutes(5);

    /// <summary>Bytes of a staged block and of a ranged read.</summary>
    public int BlockBytes { get; init; } = 16 << 20;

    /// <summary>Blocks of one file in flight at once; each holds <see cref="BlockBytes"/> of memory.</summary>
    public int Parallelism { get; init; } = 4;

    /// <summary>After this long one request counts as lost.</summary>
    public TimeSpan AttemptTimeout { get; init; } = TimeSpan.FromSeconds(100);

    /// <summary>A request is tried again until this long after its first attempt.</summary>
    public TimeSpan RetryBudget { get; init; } = Training;

    public TimeProvider Time { get; init; } = TimeProvider.System;

    /// <summary>Told when requests go unanswered and are tried again, in words, and with null when they are answered again. Any thread.</summary>
    public Action<string?>? Trouble { get; init; }

    /// <summary>Null: HTTP.</summary>
    public HttpPipelineTransport? Transport { get; init; }
}
