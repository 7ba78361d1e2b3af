using System.Collections.Immutable;

namespace Trainer.Contracts;

/// <summary>One type of grain, in the coordinator that answers.</summary>
public sealed record GrainView
{
    public required string Grain { get; init; }

    /// <summary>In memory.</summary>
    public int Activations { get; init; }

    /// <summary>Since the coordinator started.</summary>
    public long Calls { get; init; }

    /// <summary>Calls that ended with an exception, since the coordinator started.</summary>
    public long Errors { get; init; }

    /// <summary>Of the last minute, as what follows.</summary>
    public double CallsPerSecond { get; init; }

    public long RecentErrors { get; init; }
    public double? MeanMilliseconds { get; init; }
    public double? P99Milliseconds { get; init; }
    public double? MaxMilliseconds { get; init; }
}

public sealed record GrainList
{
    public int SchemaVersion { get; init; } = 1;
    public required ImmutableArray<GrainView> Grains { get; init; }
}
