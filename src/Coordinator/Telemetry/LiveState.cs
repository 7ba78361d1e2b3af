using System.Collections.Concurrent;
using Trainer.Contracts;

namespace Trainer.Coordinator.Telemetry;

/// <summary>
/// Jobs that have not ended and nodes, as far as their grains live in this coordinator: they say here how they are, so that a scrape
/// of thousands of jobs calls none of them. In a cluster every job and node is at one coordinator, and sums over all are right.
/// </summary>
public sealed class LiveState
{
    private readonly ConcurrentDictionary<JobId, JobRecord> _jobs = new();
    private readonly ConcurrentDictionary<string, NodeStanding> _nodes = new(StringComparer.Ordinal);

    public IEnumerable<JobRecord> Jobs => _jobs.Select(pair => pair.Value);

    public IEnumerable<NodeStanding> Nodes => _nodes.Select(pair => pair.Value);

    public void Tell(JobRecord job)
    {
        if (job.Status.IsTerminal())
        {
            Forget(job.Id);
        }
        else
        {
            _jobs[job.Id] = job;
        }
    }

    public void Forget(JobId job) => _jobs.TryRemove(job, out _);

    public void Tell(NodeStanding node) => _nodes[node.Node] = node;

    public void Forget(string node) => _nodes.TryRemove(node, out _);
}
