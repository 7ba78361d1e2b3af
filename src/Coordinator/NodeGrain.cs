using System.Collections.Immutable;
using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;
using Trainer.Coordinator.Telemetry;

namespace Trainer.Coordinator;

/// <summary>One machine: passes on what jobs want of it and what its agent says.</summary>
public sealed class NodeGrain(
    [PersistentState("node")] IPersistentState<NodeState> state, NodeChanges changes, LiveState live, CoordinatorOptions options, TimeProvider time) : Grain, INodeGrain
{
    private static readonly TimeSpan s_strikesCount = TimeSpan.FromMinutes(10);
    private static readonly TimeSpan s_offerEvery = TimeSpan.FromSeconds(3);

    private readonly Dictionary<RankName, RankAssignment> _wanted = [];
    private readonly Dictionary<RankName, long> _unclaimed = [];
    private readonly HashSet<RankName> _released = [];
    private readonly Queue<long> _strikes = [];
    private string? _lastStrike;
    private NodeReport? _report;
    private NodeOffer? _offered;
    private long _heard, _offeredAt;

    public override Task OnActivateAsync(CancellationToken cancellationToken)
    {
        _heard = time.GetTimestamp();
        return Task.CompletedTask;
    }

    public override Task OnDeactivateAsync(DeactivationReason reason, CancellationToken cancellationToken)
    {
        live.Forget(Node);
        return Task.CompletedTask;
    }

    private string Node => this.GetPrimaryKeyString();

    /// <summary>Failures of late that may lie in the machine.</summary>
    private int Strikes
    {
        get
        {
            while (_strikes.TryPeek(out long oldest) && time.GetElapsedTime(oldest) > s_strikesCount)
            {
                _strikes.Dequeue();
            }
            return _strikes.Count;
        }
    }

    private bool Draining => state.State.Drained || _report?.Draining == true;

    public async Task<NodeOrders?> Report(NodeReport report)
    {
        // Two that take orders under one name would start every rank twice. Who is silent has left the name to the other.
        if (_report is { Agent: { } holder } && report.Agent is { } other && other != holder && time.GetElapsedTime(_heard) <= options.NodeSilence)
        {
            return null;
        }
        // A smaller number after a silence is that of a machine that was started anew.
        if (_report is not { } last || report.Sequence >= last.Sequence || time.GetElapsedTime(_heard) > options.NodeSilence)
        {
            await TakeAsync(report);
        }
        var known = report.Ranks.Where(rank => rank.Process is not null).Select(rank => rank.Name).ToHashSet();
        return new NodeOrders
        {
            Ranks = [
                .. _wanted.Values.Select(wanted => known.Contains(wanted.Name) ? wanted with { Config = null } : wanted),
                .. _unclaimed.Keys.Select(name => new RankAssignment { Name = name, WorldSize = 0 })],
        };
    }

    public Task<NodeSight> Ensure(ImmutableArray<RankAssignment> ranks)
    {
        JobId job = ranks[0].Name.Job;
        int attempt = ranks[0].Name.Attempt;
        bool changed = Forget(name => name.Job == job && name.Attempt < attempt);
        foreach (RankAssignment rank in ranks)
        {
            changed |= !_wanted.TryGetValue(rank.Name, out RankAssignment? before) || before != rank;
            _wanted[rank.Name] = rank;
            _unclaimed.Remove(rank.Name);
        }
        if (changed)
        {
            changes.Tell(Node);
        }
        return Task.FromResult(Sight(name => name.Job == job && name.Attempt == attempt));
    }

    public Task<NodeSight> Release(JobId job, int upTo)
    {
        if (Forget(name => name.Job == job && name.Attempt <= upTo))
        {
            changes.Tell(Node);
        }
        return Task.FromResult(Sight(name => name.Job == job && name.Attempt <= upTo));
    }

    public Task<NodeSight> Look(JobId job) => Task.FromResult(Sight(name => name.Job == job));

    public async Task Drain(bool drain)
    {
        state.State.Drained = drain;
        _strikes.Clear();
        await state.WriteStateAsync();
        if (_report is { } report)
        {
            _offered = null;
            await OfferAsync(report);
            foreach (JobId job in _wanted.Keys.Select(name => name.Job).Distinct().ToArray())
            {
                await GrainFactory.GetGrain<IJobGrain>(job.Value).Wake();
            }
        }
    }

    public Task Strike(string reason)
    {
        _strikes.Enqueue(time.GetTimestamp());
        _lastStrike = reason;
        return Task.CompletedTask;
    }

    public Task<NodeView?> Get()
    {
        if (_report is not { } report)
        {
            return Task.FromResult<NodeView?>(null);
        }
        TimeSpan silent = time.GetElapsedTime(_heard);
        RankName[] ranks = [.. report.Ranks.Where(rank => rank.Alive).Select(rank => rank.Name)];
        return Task.FromResult<NodeView?>(new NodeView
        {
            Node = Node,
            Pool = report.Pool,
            Slots = report.Slots,
            Kind = report.Kind,
            State = Standing(report).State(silent, options),
            SilentSeconds = silent.TotalSeconds,
            Strikes = Strikes,
            LastStrike = Strikes > 0 ? _lastStrike : null,
            Ranks = [.. ranks],
            Version = report.Version,
            Used = ranks.Length,
        });
    }

    private async Task TakeAsync(NodeReport report)
    {
        NodeReport? before = _report;
        _report = report;
        _heard = time.GetTimestamp();
        live.Tell(Standing(report));
        Claim(report);
        foreach (JobId job in Changed(before, report))
        {
            await GrainFactory.GetGrain<IJobGrain>(job.Value).Wake();
        }
        await OfferAsync(report);
    }

    /// <summary>
    /// A rank that nobody here knows of was started before this activation: its job is asked, and says Ensure or Release. Until
    /// then it goes on; one that nobody claims is ended.
    /// </summary>
    private void Claim(NodeReport report)
    {
        var alive = report.Ranks.Where(rank => rank.Alive).Select(rank => rank.Name).ToHashSet();
        _released.IntersectWith(alive);
        foreach (RankName gone in _unclaimed.Keys.Where(name => !alive.Contains(name) || time.GetElapsedTime(_unclaimed[name]) > options.NodeLease).ToArray())
        {
            _unclaimed.Remove(gone);
            _released.Add(gone);
        }
        foreach (RankName name in alive.Where(name => !_wanted.ContainsKey(name) && !_released.Contains(name)))
        {
            _unclaimed.TryAdd(name, time.GetTimestamp());
            GrainFactory.GetGrain<IJobGrain>(name.Job.Value).Claim(name, Node);
        }
    }

    /// <summary>Jobs for which something happened that they should look at now.</summary>
    private static IEnumerable<JobId> Changed(NodeReport? before, NodeReport report)
    {
        Dictionary<RankName, RankState> old = before?.Ranks.ToDictionary(rank => rank.Name) ?? [];
        return report.Ranks.Where(rank =>
            {
                RankState? was = old.GetValueOrDefault(rank.Name);
                return was is null || was.Alive != rank.Alive || (was.Process is null) != (rank.Process is null) || (was.Result is null) != (rank.Result is null)
                    || was.Report?.Endpoint != rank.Report?.Endpoint || (was.Report is null) != (rank.Report is null) || was.StacksTaken != rank.StacksTaken;
            }).Select(rank => rank.Name.Job).Concat(before?.Draining == report.Draining ? [] : report.Ranks.Select(rank => rank.Name.Job)).Distinct();
    }

    private async Task OfferAsync(NodeReport report)
    {
        var offer = new NodeOffer
        {
            Node = Node,
            Slots = report.Slots,
            Closed = Draining,
            Runs = [.. report.Ranks.Where(rank => rank.Alive).Select(rank => rank.Name.Job).OrderBy(job => job.Value, StringComparer.Ordinal)],
            Strikes = Strikes >= NodeStanding.ManyStrikes ? Strikes : 0,
        };
        if (_offered is not null && _offered.Runs.SequenceEqual(offer.Runs) && _offered with { Runs = offer.Runs } == offer
            && time.GetElapsedTime(_offeredAt) < s_offerEvery)
        {
            return;
        }
        await GrainFactory.GetGrain<IQueueGrain>(report.Pool).Offer(offer);
        _offered = offer;
        _offeredAt = time.GetTimestamp();
    }

    private NodeStanding Standing(NodeReport report) =>
        new(Node, report.Pool, report.Slots, report.Ranks.Count(rank => rank.Alive), Draining, Strikes, _heard);

    private bool Forget(Func<RankName, bool> which)
    {
        RankName[] names = [.. _wanted.Keys.Concat(_unclaimed.Keys).Where(which)];
        foreach (RankName name in names)
        {
            _wanted.Remove(name);
            _unclaimed.Remove(name);
            _released.Add(name);
        }
        return names.Length > 0;
    }

    private NodeSight Sight(Func<RankName, bool> which) => new()
    {
        Node = Node,
        SilentSeconds = time.GetElapsedTime(_heard).TotalSeconds,
        Draining = Draining,
        Ranks = [.. _report?.Ranks.Where(rank => which(rank.Name)) ?? []],
        Host = _report?.Host,
        Trouble = _report?.Trouble,
    };
}

/// <summary>What is stored of a node.</summary>
[GenerateSerializer, Alias("trainer.node-state")]
public sealed class NodeState
{
    [Id(0)] public bool Drained { get; set; }
}
