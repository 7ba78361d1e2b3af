using System.Collections.Concurrent;
using System.Diagnostics;
using Trainer.Contracts;

namespace Trainer.Benchmarks;

/// <summary>Every rank that a node was ordered to run, by gang. Called by all nodes at once.</summary>
internal sealed class GangLedger(int slots)
{
    private readonly Dictionary<JobId, Gang> _gangs = [];
    private readonly List<long> _complete = [];
    private readonly Lock _gate = new();

    public ConcurrentQueue<string> Problems { get; } = [];

    /// <summary>Gangs of which every rank was ordered.</summary>
    public int Complete
    {
        get
        {
            lock (_gate)
            {
                return _complete.Count;
            }
        }
    }

    /// <summary>From the first gang to the last.</summary>
    public double PerSecond => (_complete.Count - 1) / Stopwatch.GetElapsedTime(_complete[0], _complete[^1]).TotalSeconds;

    public double MedianPerSecond
    {
        get
        {
            int[] counts = [.. _complete.GroupBy(at => (int)Stopwatch.GetElapsedTime(_complete[0], at).TotalSeconds).Select(second => second.Count()).Order()];
            return counts[counts.Length / 2];
        }
    }

    /// <param name="alive">Ranks that live on the node now, this one included.</param>
    public void Ordered(RankAssignment rank, string node, int alive)
    {
        lock (_gate)
        {
            if (!_gangs.TryGetValue(rank.Name.Job, out Gang? gang))
            {
                _gangs.Add(rank.Name.Job, gang = new Gang(rank.WorldSize));
            }
            if (rank.Name.Attempt != 1)
            {
                Problems.Enqueue($"{rank.Name.Job} is in attempt {rank.Name.Attempt}");
            }
            else if (!gang.Places.TryAdd(rank.Name.Rank, node))
            {
                Problems.Enqueue($"rank {rank.Name.Rank} of {rank.Name.Job} is ordered on {gang.Places[rank.Name.Rank]} and {node}");
            }
            else if (gang.Places.Count == gang.Ranks)
            {
                _complete.Add(Stopwatch.GetTimestamp());
            }
            if (alive > slots)
            {
                Problems.Enqueue($"{node} has {alive} ranks on {slots} slots");
            }
        }
    }

    private sealed record Gang(int Ranks)
    {
        public Dictionary<int, string> Places { get; } = [];
    }
}
