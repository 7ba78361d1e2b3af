using System.Collections.Immutable;
using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>
/// One pool. Keeps what jobs and nodes say in memory, stores the quotas, and lets <see cref="Placement"/> decide: at once when it is
/// quiet, else for all that happened in a moment together.
/// </summary>
public sealed class QueueGrain([PersistentState("queue")] IPersistentState<QueueState> state, TimeProvider time) : Grain, IQueueGrain
{
    /// <summary>For jobs that hold slots and ask every second or two, and for those that wait and ask more seldom the farther back they are.</summary>
    private static readonly TimeSpan s_holderPatience = TimeSpan.FromMinutes(1), s_waiterPatience = TimeSpan.FromMinutes(5);

    private static readonly TimeSpan s_nodePatience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_gathering = TimeSpan.FromSeconds(1.5);
    private static readonly TimeSpan s_surveying = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_numbering = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan s_moment = TimeSpan.FromMilliseconds(25);

    /// <summary>Grants a second, and in one go however late it comes: more would delay every node's heartbeat behind the starts of a thousand jobs.</summary>
    private const int Pace = 220, MostAtOnce = 12;

    private readonly Dictionary<JobId, Entry> _jobs = [];
    private readonly SortedSet<Entry> _waiting = new(Comparer<Entry>.Create((a, b) => Placement.Order(a.Request).CompareTo(Placement.Order(b.Request))));
    private readonly SortedDictionary<string, Node> _nodes = new(StringComparer.Ordinal);

    /// <summary>Slots that jobs hold, by node and by project.</summary>
    private readonly Dictionary<string, Dictionary<JobId, int>> _held = new(StringComparer.Ordinal);
    private readonly Dictionary<string, int> _used = new(StringComparer.Ordinal);
    private JobId? _lastGranted;
    private IGrainTimer? _soon;
    private long _activated, _surveyed, _numbered, _looked, _placed;
    private int _free, _all;
    private bool _changed, _isSoon;

    public override Task OnActivateAsync(CancellationToken cancellationToken)
    {
        _activated = time.GetTimestamp();
        // Nodes fall silent and come back, and the gathering ends, without a call of their own.
        this.RegisterGrainTimer(_ => Look(), new GrainTimerCreationOptions { DueTime = s_gathering, Period = s_look, KeepAlive = true });
        _soon = this.RegisterGrainTimer(_ => PlaceSoon(), new GrainTimerCreationOptions { DueTime = Timeout.InfiniteTimeSpan, Period = Timeout.InfiniteTimeSpan, KeepAlive = true });
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
        return Task.FromResult(entry.Nodes.IsEmpty
            ? new QueuePlace { Reason = Why(entry), Position = entry.Position }
            : new QueuePlace { Nodes = entry.Nodes });
    }

    public Task Release(JobId job)
    {
        if (_jobs.GetValueOrDefault(job) is { } entry)
        {
            Drop(entry);
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
        return Task.FromResult(new PoolView
        {
            Pool = this.GetPrimaryKeyString(),
            Nodes = free.Count,
            Slots = free.Sum(node => _nodes[node.Name].Offer.Slots),
            Free = free.Sum(node => Math.Max(0, node.Free)),
            Running = _jobs.Count - _waiting.Count,
            Waiting = _waiting.Count,
            Projects = [.. _used.Keys.Union(Quotas.Keys).Order(StringComparer.Ordinal)
                .Select(project => new ProjectUse { Project = project, Used = _used.GetValueOrDefault(project), Quota = Quotas.TryGetValue(project, out int most) ? most : null })],
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
            Drop(known);
        }
        var entry = new Entry(request) { Asked = time.GetTimestamp() };
        _jobs[request.Job] = entry;
        if (known is { Nodes.IsEmpty: false })
        {
            Grant(entry, known.Nodes);
        }
        else
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
        Count(entry, 1);
        _lastGranted = entry.Request.Job;
    }

    private void Drop(Entry entry)
    {
        _jobs.Remove(entry.Request.Job);
        _waiting.Remove(entry);
        Count(entry, -1);
        _changed = true;
    }

    /// <summary>Counts what a job holds, or no longer does.</summary>
    private void Count(Entry entry, int sign)
    {
        foreach (string node in entry.Nodes)
        {
            if (!_held.TryGetValue(node, out Dictionary<JobId, int>? jobs))
            {
                _held[node] = jobs = [];
            }
            Add(jobs, entry.Request.Job, sign);
            if (_nodes.TryGetValue(node, out Node? known))
            {
                known.Taken = null;
            }
        }
        Add(_used, entry.Request.Project, sign * entry.Nodes.Length);

        static void Add<T>(Dictionary<T, int> counts, T key, int count)
            where T : notnull
        {
            int sum = counts.GetValueOrDefault(key) + count;
            if (sum == 0)
            {
                counts.Remove(key);
            }
            else
            {
                counts[key] = sum;
            }
        }
    }

    /// <summary>Grants what fits, now or in a moment.</summary>
    private void Place(JobId? except = null)
    {
        if (time.GetElapsedTime(_placed) >= s_moment)
        {
            PlaceNow(except);
        }
        else if (!_isSoon)
        {
            _isSoon = true;
            // With a period, because a timer that ticks right now is armed by its period.
            _soon!.Change(s_moment, s_moment);
        }
    }

    private Task PlaceSoon()
    {
        _isSoon = false;
        _soon!.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        Place();
        return Task.CompletedTask;
    }

    /// <summary>Jobs other than the one that asks are woken: they ask for what they got.</summary>
    private void PlaceNow(JobId? except)
    {
        // A queue that has just come to life does not know yet what jobs hold and nodes run.
        if (!_changed || _waiting.Count == 0 || time.GetElapsedTime(_activated) < s_gathering)
        {
            return;
        }
        int most = (int)Math.Round(Math.Min(MostAtOnce, Pace * time.GetElapsedTime(_placed).TotalSeconds));
        ImmutableArray<(JobId Job, ImmutableArray<string> Nodes)> granted =
            Placement.Decide(Free(), _waiting.Select(entry => entry.Request), _used, Quotas, time.GetUtcNow(), most);
        _changed = granted.Length == most;
        foreach ((JobId job, ImmutableArray<string> nodes) in granted)
        {
            Grant(_jobs[job], nodes);
            if (job != except)
            {
                GrainFactory.GetGrain<IJobGrain>(job.Value).Wake();
            }
        }
        _placed = time.GetTimestamp();
        if (_changed)
        {
            Place();
        }
    }

    /// <summary>A slot is taken by a job that holds it, and by a rank that runs on it whether its job has said so or not.</summary>
    private List<FreeNode> Free()
    {
        var free = new List<FreeNode>(_nodes.Count);
        foreach (Node node in _nodes.Values)
        {
            if (node.Offer.Closed || time.GetElapsedTime(node.Heard) > s_nodePatience)
            {
                continue;
            }
            node.Taken ??= Taken(node.Offer);
            free.Add(new FreeNode(node.Offer.Node, node.Offer.Slots - node.Taken.Value, node.Taken.Value, node.Offer.Strikes > 0));
        }
        return free;
    }

    private int Taken(NodeOffer offer)
    {
        Dictionary<JobId, int>? held = _held.GetValueOrDefault(offer.Node);
        int taken = held?.Values.Sum() ?? 0;
        // In order of jobs, so that equal ones lie together.
        for (int i = 0, count; i < offer.Runs.Length; i += count)
        {
            JobId job = offer.Runs[i];
            for (count = 1; i + count < offer.Runs.Length && offer.Runs[i + count] == job; count++)
            {
            }
            taken += Math.Max(0, count - (held?.GetValueOrDefault(job) ?? 0));
        }
        return taken;
    }

    private string Why(Entry entry)
    {
        if (time.GetElapsedTime(_activated) < s_gathering)
        {
            return "the coordinator has just started and hears first what runs";
        }
        string pool = this.GetPrimaryKeyString();
        Survey();
        string position = $"position {entry.Position ?? _waiting.Count} of {_waiting.Count}";
        int ranks = entry.Request.Ranks, slots = _free, all = _all;
        if (Quotas.TryGetValue(entry.Request.Project, out int most) && _used.GetValueOrDefault(entry.Request.Project) + ranks > most)
        {
            return $"waiting for the quota of project {entry.Request.Project} ({most} slots; {position})";
        }
        return _nodes.Count == 0 ? $"waiting for a worker in pool {pool} ({position})"
            : ranks > all ? $"waiting for more workers: {ranks} slots are needed, pool {pool} has {all}; add some, or give one more (serve --slots N, worker --slots N) ({position})"
            : $"waiting for {ranks} {(ranks == 1 ? "slot" : "slots")} in pool {pool}: {slots} of {all} free{Ahead()} ({position})";

        // Nobody is told of another project's jobs.
        string Ahead() => ranks <= slots && _waiting.Min is { } first && first != entry && first.Request.Ranks > slots ? ", kept for a job that has waited longer"
            : _lastGranted is { } job && _jobs.TryGetValue(job, out Entry? other) && other.Request.Project == entry.Request.Project ? $", {job} runs" : "";
    }

    /// <summary>What reasons tell; thousands of jobs ask for them at once.</summary>
    private void Survey()
    {
        if (time.GetElapsedTime(_surveyed) > s_surveying)
        {
            _free = Free().Sum(node => Math.Max(0, node.Free));
            _all = _nodes.Values.Sum(node => node.Offer.Closed ? 0 : node.Offer.Slots);
            _surveyed = time.GetTimestamp();
        }
        if (time.GetElapsedTime(_numbered) > s_numbering)
        {
            int position = 0;
            foreach (Entry waiting in _waiting)
            {
                waiting.Position = ++position;
            }
            _numbered = time.GetTimestamp();
        }
    }

    /// <summary>A job that stopped asking has ended without saying so, or never will run again.</summary>
    private void DropSilent()
    {
        if (time.GetElapsedTime(_looked) < s_numbering)
        {
            return;
        }
        _looked = time.GetTimestamp();
        foreach (Entry entry in _jobs.Values.Where(entry => time.GetElapsedTime(entry.Asked) > (entry.Nodes.IsEmpty ? s_waiterPatience : s_holderPatience)).ToArray())
        {
            Drop(entry);
        }
        _changed |= _waiting.Count > 0;
    }

    private sealed class Entry(QueueRequest request)
    {
        public QueueRequest Request { get; set; } = request;
        public ImmutableArray<string> Nodes { get; set; } = [];
        public long Asked { get; set; }

        /// <summary>In the queue, when it was last numbered.</summary>
        public int? Position { get; set; }
    }

    private sealed record Node(NodeOffer Offer, long Heard)
    {
        /// <summary>Slots that a job holds or a rank runs on; null: to be counted again.</summary>
        public int? Taken { get; set; }
    }
}

/// <summary>What is stored of a pool.</summary>
[GenerateSerializer, Alias("trainer.queue-state")]
public sealed class QueueState
{
    /// <summary>Most slots of a project at once; absent: no bound.</summary>
    [Id(0)] public Dictionary<string, int> Quotas { get; set; } = new(StringComparer.Ordinal);
}
