using System.Collections.Immutable;
using Orleans;
using Orleans.Concurrency;

namespace Trainer.Contracts;

/// <summary>
/// Who runs in a pool and who waits. Its key is the pool's name. All or nothing: a job gets room for all its ranks at once.
/// Only quotas are stored: jobs repeat their requests, with what they hold, and nodes repeat what they offer.
/// </summary>
[Alias("trainer.queue.v2")]
public interface IQueueGrain : IGrainWithStringKey
{
    /// <summary>Asks for room, or renews what was granted. A job that stops asking for a minute loses its place.</summary>
    [Alias("acquire")]
    Task<QueuePlace> Acquire(QueueRequest request);

    [Alias("release")]
    Task Release(JobId job);

    /// <summary>What a node has to give, repeated every few seconds. A node that stops offering for ten seconds gets nothing new.</summary>
    [Alias("offer"), OneWay]
    Task Offer(NodeOffer offer);

    /// <summary>Names of the nodes that ever offered, in order.</summary>
    [Alias("nodes")]
    Task<ImmutableArray<string>> Nodes();

    /// <summary>At most so many slots for a project at once; null: no bound.</summary>
    [Alias("quota")]
    Task SetQuota(string project, int? slots);

    [Alias("get")]
    Task<PoolView> Get();
}

[GenerateSerializer, Immutable, Alias("trainer.queue-request.v2")]
public sealed record QueueRequest
{
    [Id(0)] public required JobId Job { get; init; }
    [Id(1)] public string Project { get; init; } = "default";

    /// <summary>Larger runs earlier; equal ones in order of submission. A point is gained for each five minutes of waiting.</summary>
    [Id(2)] public int Priority { get; init; }

    [Id(3)] public required DateTimeOffset SubmittedAt { get; init; }
    [Id(4)] public required int Ranks { get; init; }

    /// <summary>What the job holds already, by rank: what a queue that was lost must know. Empty: it waits.</summary>
    [Id(5)] public ImmutableArray<string> Holds { get; init; } = [];

    /// <summary>Nodes where its last attempts failed: taken only when nothing else is left.</summary>
    [Id(6)] public ImmutableArray<string> Avoid { get; init; } = [];
}

[GenerateSerializer, Immutable, Alias("trainer.queue-place.v2")]
public sealed record QueuePlace
{
    /// <summary>Node of each rank; empty: not granted.</summary>
    [Id(0)] public ImmutableArray<string> Nodes { get; init; } = [];

    /// <summary>Why it waits, with its position.</summary>
    [Id(1)] public string? Reason { get; init; }

    /// <summary>Among those that wait, from 1; null when it is not known yet.</summary>
    [Id(2)] public int? Position { get; init; }

    public bool Granted => Nodes.Length > 0;
}

[GenerateSerializer, Immutable, Alias("trainer.node-offer")]
public sealed record NodeOffer
{
    [Id(0)] public required string Node { get; init; }
    [Id(1)] public required int Slots { get; init; }

    /// <summary>It takes no new ranks.</summary>
    [Id(2)] public bool Closed { get; init; }

    /// <summary>What runs there, a slot each: counts as taken even before its job has said so.</summary>
    [Id(3)] public ImmutableArray<JobId> Runs { get; init; } = [];

    /// <summary>Ranks failed there of late: taken when nothing else is left.</summary>
    [Id(4)] public int Strikes { get; init; }
}
