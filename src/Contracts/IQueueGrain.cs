using Orleans;

namespace Trainer.Contracts;

/// <summary>Who runs on a machine and who waits. Its key is the pool; for now one machine is one pool with room for one job.</summary>
[Alias("trainer.queue.v1")]
public interface IQueueGrain : IGrainWithStringKey
{
    /// <summary>Asks for the machine, or renews what was granted. A job that stops asking for a minute loses its place.</summary>
    [Alias("acquire")]
    Task<QueuePlace> Acquire(QueueRequest request);

    [Alias("release")]
    Task Release(JobId job);
}

[GenerateSerializer, Immutable, Alias("trainer.queue-request")]
public sealed record QueueRequest
{
    [Id(0)] public required JobId Job { get; init; }

    /// <summary>Larger runs earlier; equal ones in order of submission.</summary>
    [Id(1)] public int Priority { get; init; }

    [Id(2)] public required DateTimeOffset SubmittedAt { get; init; }
}

[GenerateSerializer, Immutable, Alias("trainer.queue-place")]
public sealed record QueuePlace
{
    [Id(0)] public required bool Granted { get; init; }

    /// <summary>Why it waits, with its position.</summary>
    [Id(1)] public string? Reason { get; init; }
}
