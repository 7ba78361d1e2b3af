using System.Collections.Immutable;
using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>One pool. Keeps what jobs and nodes say in memory, stores the quotas, and lets <see cref="Placement"/> decide.</summary>
public sealed class QueueGrain([PersistentState("queue")] IPersistentState<QueueState> state, TimeProvider time) : Grain, IQueueGrain
{
    private static readonly TimeSpan s_jobPatience = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan s_nodePatience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_gathering = TimeSpan.FromSeconds(1.5);
    private static readonly TimeSpan s_numbering = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(500);

    private readonly Dictionary<JobId, Entry> _jobs = [];
    private readonly SortedSet<Entry> _waiting = new(Comparer<Entry>.Create((a, b) => Placement.Order(a.Request).CompareTo(Placement.Order(b.Request))));
    private readonly SortedDictionary<string, Node> _nodes = new(StringComparer.Ordinal);
    private Dictionary<JobId, int> _positions = [];
    private long _activated, _numbered, _looked;
    private bool _changed;

    public override Task OnActivateAsync(CancellationToken cancellationToken)
    {
        _activated = time.GetTimestamp();
        // Nodes fall silent and come back, and the gathering ends, without a call of their own.
        this.RegisterGrainTimer(_ => Look(), new GrainTimerCreationOptions { DueTime = s_gathering, Period = s_look, KeepAlive = true });
        return GrainFactory.GetGrain<IPoolIndexGrain>(IPoolIndexGrain.Key).Register(this.GetPrimaryKeyString());
    }

    private Dictionary<string, int> Quotas => state.State.Quotas;

    public Task<QueuePlace> Acquire(QueueRequest request)
    {
        Entry entry = Enter(request);
        if (entry.Nodes.IsEmpty && !request.Holds.IsEmpty)
        {
            Grant(entry, request.Holds);
        }
        Place(except: request.Job);
        return Task.FromResult(entry.Nodes.IsEmpty ? new QueuePlace { Reason = Why(entry) } : new QueuePlace { Nodes = entry.Nodes });
    }

    public Task Release(JobId job)
    {
        if (_jobs.Remove(job, out Entry? entry))
        {
            _waiting.Remove(entry);
            _changed = true;
            Place();
        }
        return Task.CompletedTask;
    }

    public Task Offer(NodeOffer offer)
    {
        NodeOffer? before = _nodes.GetValueOrDefault(offer.Node)?.Offer;
        _nodes[offer.Node] = new Node(offer, time.GetTimestamp());
        _changed |= before is null || before.Slots != offer.Slots || before.Closed != offer.Closed || !before.Runs.SequenceEqual(offer.Runs);
        Place();
        return Task.CompletedTask;
    }

    public Task<ImmutableArray<string>> Nodes() => Task.FromResult<ImmutableArray<string>>([.. _nodes.Keys]);

    public async Task SetQuota(string project, int? slots)
    {
        if (slots is { } most)
        {
            Quotas[project] = most;
        }
        else
        {
            Quotas.Remove(project);
        }
        await state.WriteStateAsync();
        _changed = true;
        Place();
    }

    public Task<PoolView> Get()
    {
        List<FreeNode> free = Free();
        Dictionary<string, int> used = Used();
        return Task.FromResult(new PoolView
        {
            Pool = this.GetPrimaryKeyString(),
            Nodes = free.Count,
            Slots = free.Sum(node => _nodes[node.Name].Offer.Slots),
            Free = free.Sum(node => Math.Max(0, node.Free)),
            Running = _jobs.Count - _waiting.Count,
            Waiting = _waiting.Count,
            Projects = [.. used.Where(use => use.Value > 0).Select(use => use.Key).Union(Quotas.Keys).Order(StringComparer.Ordinal)
                .Select(project => new ProjectUse { Project = project, Used = used.GetValueOrDefault(project), Quota = Quotas.TryGetValue(project, out int most) ? most : null })],
        });
    }

    private Task Look()
    {
        DropSilent();
        Place();
        return Task.CompletedTask;
    }

    private Entry Enter(QueueRequest request)
    {
        if (_jobs.TryGetValue(request.Job, out Entry? known))
        {
            known.Asked = time.GetTimestamp();
            if (known.Request.Priority == request.Priority && known.Request.Ranks == request.Ranks)
            {
                known.Request = request;
                return known;
            }
            _waiting.Remove(known);
        }
        var entry = new Entry(request) { Asked = time.GetTimestamp(), Nodes = known?.Nodes ?? [] };
        _jobs[request.Job] = entry;
        if (entry.Nodes.IsEmpty)
        {
            _waiting.Add(entry);
            _changed = true;
        }
        return entry;
    }

    private void Grant(Entry entry, ImmutableArray<string> nodes)
    {
        _waiting.Remove(entry);
        entry.Nodes = nodes;
        entry.Asked = time.GetTimestamp();
    }

    /// <summary>Grants what fits. Jobs other than the one that asks are woken: they ask for what they got.</summary>
    private void Place(JobId? except = null)
    {
        // A queue that has just come to life does not know yet what jobs hold and nodes run.
        if (!_changed || _waiting.Count == 0 || time.GetElapsedTime(_activated) < s_gathering)
        {
            return;
        }
        _changed = false;
        foreach ((JobId job, ImmutableArray<string> nodes) in Placement.Decide(
            Free(), _waiting.Select(entry => entry.Request), Used(), Quotas, time.GetUtcNow()))
        {
            Grant(_jobs[job], nodes);
            if (job != except)
            {
                GrainFactory.GetGrain<IJobGrain>(job.Value).Wake();
            }
        }
    }

    /// <summary>A slot is taken by a job that holds it, and by a rank that runs on it whether its job has said so or not.</summary>
    private List<FreeNode> Free()
    {
        var held = new Dictionary<(string Node, JobId Job), int>();
        foreach (Entry entry in _jobs.Values)
        {
            foreach (string node in entry.Nodes)
            {
                held[(node, entry.Request.Job)] = held.GetValueOrDefault((node, entry.Request.Job)) + 1;
            }
        }
        var taken = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (((string node, _), int count) in held)
        {
            taken[node] = taken.GetValueOrDefault(node) + count;
        }
        var free = new List<FreeNode>();
        foreach (Node node in _nodes.Values)
        {
            if (node.Offer.Closed || time.GetElapsedTime(node.Heard) > s_nodePatience)
            {
                continue;
            }
            int running = node.Offer.Runs.IsEmpty ? 0 : node.Offer.Runs.GroupBy(job => job)
                .Sum(job => Math.Max(0, job.Count() - held.GetValueOrDefault((node.Offer.Node, job.Key))));
            free.Add(new FreeNode(node.Offer.Node, node.Offer.Slots - taken.GetValueOrDefault(node.Offer.Node) - running, node.Offer.Strikes > 0));
        }
        return free;
    }

    private Dictionary<string, int> Used()
    {
        var used = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (Entry entry in _jobs.Values)
        {
            used[entry.Request.Project] = used.GetValueOrDefault(entry.Request.Project) + entry.Nodes.Length;
        }
        return used;
    }

    private string Why(Entry entry)
    {
        if (_positions.Count == 0 || !_positions.ContainsKey(entry.Request.Job) || time.GetElapsedTime(_numbered) > s_numbering)
        {
            _positions = _waiting.Select((waiting, index) => (waiting.Request.Job, index)).ToDictionary(pair => pair.Job, pair => pair.index + 1);
            _numbered = time.GetTimestamp();
        }
        if (time.GetElapsedTime(_activated) < s_gathering)
        {
            return "the coordinator has just started and hears first what runs";
        }
        string pool = this.GetPrimaryKeyString();
        string position = $"position {_positions.GetValueOrDefault(entry.Request.Job, 1)} of {_waiting.Count}";
        List<FreeNode> free = Free();
        int ranks = entry.Request.Ranks, slots = free.Sum(node => Math.Max(0, node.Free)), all = _nodes.Values.Sum(node => node.Offer.Closed ? 0 : node.Offer.Slots);
        if (Quotas.TryGetValue(entry.Request.Project, out int most) && Used().GetValueOrDefault(entry.Request.Project) + ranks > most)
        {
            return $"waiting for the quota of project {entry.Request.Project} ({most} slots; {position})";
        }
        return _nodes.Count == 0 ? $"waiting for a worker in pool {pool} ({position})"
            : ranks > all ? $"waiting for more workers: {ranks} slots are needed, pool {pool} has {all} ({position})"
            : $"waiting for {ranks} {(ranks == 1 ? "slot" : "slots")} in pool {pool}: {slots} of {all} free{Ahead()} ({position})";

        string Ahead() => _jobs.Values.FirstOrDefault(job => !job.Nodes.IsEmpty) is { } holder ? $", {holder.Request.Job} runs" : "";
    }

    /// <summary>A job that stopped asking has ended without saying so, or never will run again.</summary>
    private void DropSilent()
    {
        if (time.GetElapsedTime(_looked) < s_numbering)
        {
            return;
        }
        _looked = time.GetTimestamp();
        foreach (Entry entry in _jobs.Values.Where(entry => time.GetElapsedTime(entry.Asked) > s_jobPatience).ToArray())
        {
            _jobs.Remove(entry.Request.Job);
            _waiting.Remove(entry);
            _changed = true;
        }
        _changed |= _waiting.Count > 0;
    }

    private sealed class Entry(QueueRequest request)
    {
        public QueueRequest Request { get; set; } = request;
        public ImmutableArray<string> Nodes { get; set; } = [];
        public long Asked { get; set; }
    }

    private sealed record Node(NodeOffer Offer, long Heard);
}

/// <summary>What is stored of a pool.</summary>
[GenerateSerializer, Alias("trainer.queue-state")]
public sealed class QueueState
{
    /// <summary>Most slots of a project at once; absent: no bound.</summary>
    [Id(0)] public Dictionary<string, int> Quotas { get; set; } = new(StringComparer.Ordinal);
}
