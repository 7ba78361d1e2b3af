using System.Collections.Immutable;
using Orleans;

namespace Trainer.Contracts;

/// <summary>What a slot computes on.</summary>
[GenerateSerializer, Alias("trainer.slot-kind")]
public enum SlotKind { Cpu = 0, Cuda = 1 }

/// <summary>
/// What a worker agent says about its machine, once a second and at once when a rank starts or ends. Everything in it is the
/// whole truth of the moment: a lost report is harmless.
/// </summary>
[GenerateSerializer, Immutable, Alias("trainer.node-report")]
public sealed record NodeReport
{
    /// <summary>Version of the contract between agents and coordinators: other numbers are told to upgrade.</summary>
    public const int CurrentContract = 1;

    [Id(0)] public int Contract { get; init; } = CurrentContract;

    /// <summary>Name of the node, unique in the cluster; spelled as job names are.</summary>
    [Id(1)] public required string Node { get; init; }

    [Id(2)] public string Pool { get; init; } = "default";

    /// <summary>Where ranks of other nodes reach this one.</summary>
    [Id(3)] public string Host { get; init; } = "127.0.0.1";

    /// <summary>GPUs, or how many CPU ranks may run at once; a rank takes one.</summary>
    [Id(4)] public required int Slots { get; init; }

    [Id(5)] public SlotKind Kind { get; init; }

    /// <summary>The agent was told to end: give it no new ranks, and take the ones that run away from it.</summary>
    [Id(6)] public bool Draining { get; init; }

    [Id(7)] public ImmutableArray<RankState> Ranks { get; init; } = [];

    /// <summary>Trainer version of the agent.</summary>
    [Id(8)] public string? Version { get; init; }

    /// <summary>What is wrong on this node while its ranks go on, such as logs that do not arrive.</summary>
    [Id(9)] public string? Trouble { get; init; }

    /// <summary>Grows from report to report, so that one which was held up on its way does not undo a later one. Milliseconds since the machine started.</summary>
    [Id(10)] public long Sequence { get; init; }

    /// <summary>The same for every agent of one home on one machine: tells apart agents that bear one name. Null: an older agent's.</summary>
    [Id(11)] public string? Agent { get; init; }
}

/// <summary>Name of one rank of one attempt of a job.</summary>
[GenerateSerializer, Immutable, Alias("trainer.rank-name")]
public sealed record RankName([property: Id(0)] JobId Job, [property: Id(1)] int Attempt, [property: Id(2)] int Rank);

/// <summary>What an agent knows of one rank.</summary>
[GenerateSerializer, Immutable, Alias("trainer.rank-state")]
public sealed record RankState
{
    [Id(0)] public required RankName Name { get; init; }

    /// <summary>Null when it has never been started here.</summary>
    [Id(1)] public ProcessIdentity? Process { get; init; }

    /// <summary>Its process lives.</summary>
    [Id(2)] public bool Alive { get; init; }

    /// <summary>Its last report.</summary>
    [Id(3)] public RankReport? Report { get; init; }

    /// <summary>Since its last report, or since it was started or found.</summary>
    [Id(4)] public double SilentSeconds { get; init; }

    /// <summary>Since <see cref="RankReport.Ticks"/> or its phase last changed.</summary>
    [Id(5)] public double StillSeconds { get; init; }

    /// <summary>What it left as its last act.</summary>
    [Id(6)] public RankResult? Result { get; init; }

    /// <summary>Of a dead rank without a result: how it ended and its last words, such as "killed by SIGKILL".</summary>
    [Id(7)] public string? LastWords { get; init; }

    /// <summary>Files with the stacks of its threads were written, as the order asked.</summary>
    [Id(8)] public bool StacksTaken { get; init; }

    /// <summary>What it takes of its slot, measured now and then by its agent; null while unknown.</summary>
    [Id(9)] public SlotUse? Use { get; init; }

    /// <summary>Processor time that it has used in <see cref="StillSeconds"/>: a long step works, a hung one waits.</summary>
    [Id(10)] public double WorkedSeconds { get; init; }
}

/// <summary>What a rank takes of its slot: of the GPU, or of the machine when it is a CPU slot.</summary>
[GenerateSerializer, Immutable, Alias("trainer.slot-use")]
public sealed record SlotUse
{
    /// <summary>Of the GPU in use, or resident memory of the process.</summary>
    [Id(0)] public required long MemoryBytes { get; init; }

    /// <summary>What there is: of the GPU, or of the machine.</summary>
    [Id(1)] public required long MemoryLimitBytes { get; init; }

    /// <summary>Busy share of the GPU from 0 to 1, or busy cores of the process.</summary>
    [Id(2)] public required double Busy { get; init; }
}

/// <summary>The answer to a report: everything that the node is to run. What is not in it, is to be killed.</summary>
[GenerateSerializer, Immutable, Alias("trainer.node-orders")]
public sealed record NodeOrders
{
    [Id(0)] public ImmutableArray<RankAssignment> Ranks { get; init; } = [];
}

/// <summary>One rank that a node is to run.</summary>
[GenerateSerializer, Immutable, Alias("trainer.rank-assignment")]
public sealed record RankAssignment
{
    [Id(0)] public required RankName Name { get; init; }

    /// <summary>How many ranks train together; 0: nobody has claimed the rank yet, so it may go on but is not to be started.</summary>
    [Id(1)] public required int WorldSize { get; init; }

    /// <summary>The <see cref="JobConfig"/> as canonical JSON; absent once the node has started the rank.</summary>
    [Id(2)] public string? Config { get; init; }

    [Id(3)] public RankOrder Order { get; init; }

    /// <summary>"host:port" of rank 0's rendezvous store, once known.</summary>
    [Id(4)] public string? Rendezvous { get; init; }

    /// <summary>Write down the stacks of its threads before anything else is done to it.</summary>
    [Id(5)] public bool TakeStacks { get; init; }
}

/// <summary>A node as the API and <c>-o json</c> show it.</summary>
[GenerateSerializer, Immutable, Alias("trainer.node-view")]
public sealed record NodeView
{
    [Id(0)] public required string Node { get; init; }
    [Id(1)] public required string Pool { get; init; }
    [Id(2)] public required int Slots { get; init; }
    [Id(3)] public required SlotKind Kind { get; init; }

    /// <summary>ready, suspect (ranks failed there of late), draining, drained (nothing runs on it any more), unreachable or lost.</summary>
    [Id(4)] public required string State { get; init; }

    /// <summary>Since its last report.</summary>
    [Id(5)] public required double SilentSeconds { get; init; }

    [Id(6)] public int Strikes { get; init; }
    [Id(7)] public ImmutableArray<RankName> Ranks { get; init; } = [];
    [Id(8)] public string? Version { get; init; }

    /// <summary>Why the newest of the strikes.</summary>
    [Id(9)] public string? LastStrike { get; init; }

    /// <summary>Slots on which a rank lives.</summary>
    [Id(10)] public int Used { get; init; }
}

public sealed record NodeList
{
    public int SchemaVersion { get; init; } = 1;
    public required ImmutableArray<NodeView> Nodes { get; init; }
}
