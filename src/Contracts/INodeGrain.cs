using System.Collections.Immutable;
using Orleans;
using Orleans.Concurrency;

namespace Trainer.Contracts;

/// <summary>
/// One machine with a worker agent. Its key is the node's name. Jobs say again and again what it is to run; the agent's reports
/// fetch that and bring what is. Nothing of it is stored but whether a person drained it: both sides repeat themselves.
/// </summary>
[Alias("trainer.node.v1")]
public interface INodeGrain : IGrainWithStringKey
{
    /// <summary>An agent reports and receives what it is to run.</summary>
    /// <returns>Null: another agent has this name.</returns>
    [Alias("report")]
    Task<NodeOrders?> Report(NodeReport report);

    /// <summary>The ranks of this attempt are to run here; replaces what was asked for older attempts of the job.</summary>
    /// <returns>What the node last said of them.</returns>
    [Alias("ensure")]
    Task<NodeSight> Ensure(ImmutableArray<RankAssignment> ranks);

    /// <summary>Ranks of attempts up to this one are no longer to run here.</summary>
    /// <returns>What still lives of them.</returns>
    [Alias("release")]
    Task<NodeSight> Release(JobId job, int upTo);

    /// <summary>What the node last said of the ranks of a job; changes nothing.</summary>
    [Alias("look")]
    Task<NodeSight> Look(JobId job);

    /// <summary>Empties the node, or takes it back into service.</summary>
    [Alias("drain")]
    Task Drain(bool drain);

    /// <summary>A rank failed here for a reason that may lie in the machine.</summary>
    [Alias("strike"), OneWay]
    Task Strike(string reason);

    [Alias("get")]
    Task<NodeView?> Get();
}

/// <summary>What a job sees of a node.</summary>
[GenerateSerializer, Immutable, Alias("trainer.node-sight")]
public sealed record NodeSight
{
    [Id(0)] public required string Node { get; init; }

    /// <summary>Since the agent's last report; since the coordinator began to wait for one when it has never reported.</summary>
    [Id(1)] public required double SilentSeconds { get; init; }

    /// <summary>No rank may stay on the node.</summary>
    [Id(2)] public bool Draining { get; init; }

    [Id(3)] public ImmutableArray<RankState> Ranks { get; init; } = [];

    /// <summary>Where ranks of other nodes reach it; null before its first report.</summary>
    [Id(4)] public string? Host { get; init; }

    /// <inheritdoc cref="NodeReport.Trouble"/>
    [Id(5)] public string? Trouble { get; init; }
}
