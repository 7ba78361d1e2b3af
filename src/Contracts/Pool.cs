using System.Collections.Immutable;
using Orleans;

namespace Trainer.Contracts;

/// <summary>A pool as the API and <c>-o json</c> show it.</summary>
[GenerateSerializer, Immutable, Alias("trainer.pool-view")]
public sealed record PoolView
{
    [Id(0)] public required string Pool { get; init; }

    /// <summary>Nodes that take ranks now.</summary>
    [Id(1)] public required int Nodes { get; init; }

    /// <summary>Of these nodes.</summary>
    [Id(2)] public required int Slots { get; init; }

    [Id(3)] public required int Free { get; init; }

    /// <summary>Jobs that hold slots.</summary>
    [Id(4)] public required int Running { get; init; }

    /// <summary>Jobs that wait for slots.</summary>
    [Id(5)] public required int Waiting { get; init; }

    /// <summary>Projects with a quota or with slots, by name.</summary>
    [Id(6)] public ImmutableArray<ProjectUse> Projects { get; init; } = [];
}

/// <summary>What a project has of a pool.</summary>
[GenerateSerializer, Immutable, Alias("trainer.project-use")]
public sealed record ProjectUse
{
    [Id(0)] public required string Project { get; init; }
    [Id(1)] public required int Used { get; init; }

    /// <summary>Slots at once at most; null: no bound.</summary>
    [Id(2)] public int? Quota { get; init; }
}

public sealed record PoolList
{
    public int SchemaVersion { get; init; } = 1;
    public required ImmutableArray<PoolView> Pools { get; init; }
}

public sealed record QuotaRequest
{
    public const int MostSlots = 1 << 20;

    /// <summary>From 0 to <see cref="MostSlots"/>. Null: no bound.</summary>
    public int? Slots { get; init; }
}
