using System.Collections.Immutable;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>A node as the placement sees it.</summary>
/// <param name="Free">Slots that nothing holds.</param>
/// <param name="Taken">Slots that something holds.</param>
/// <param name="Suspect">Ranks failed on it of late: taken when nothing else is left.</param>
public readonly record struct FreeNode(string Name, int Free, int Taken = 0, bool Suspect = false);

/// <summary>
/// Which waiting jobs get room, as a pure function. All ranks of a job or none; jobs in order; smaller ones may pass a job that
/// does not fit, until that one has waited so long that room is kept for it; not for one that the pool could never hold.
/// </summary>
public static class Placement
{
    /// <summary>What a point of priority is worth: a job gains a point on later ones for each of these that it waits.</summary>
    public static readonly TimeSpan Aging = TimeSpan.FromMinutes(5);

    /// <summary>A job that does not fit is passed by others for so long.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromMinutes(10);

    /// <summary>Ages and priorities as one number that never changes: the smallest is next.</summary>
    public static (DateTimeOffset Key, DateTimeOffset SubmittedAt, string Job) Order(QueueRequest request) =>
        (request.SubmittedAt - (request.Priority * Aging), request.SubmittedAt, request.Job.Value);

    /// <param name="nodes">Nodes that take new ranks.</param>
    /// <param name="waiting">In <see cref="Order"/>.</param>
    /// <param name="used">Slots that each project holds.</param>
    /// <param name="quotas">Most slots of a project; absent: no bound.</param>
    /// <param name="now">Decides whose patience is over.</param>
    /// <param name="most">Grants so many at most.</param>
    /// <returns>The node of each rank, for jobs that start now.</returns>
    public static ImmutableArray<(JobId Job, ImmutableArray<string> Nodes)> Decide(
        IEnumerable<FreeNode> nodes,
        IEnumerable<QueueRequest> waiting,
        IReadOnlyDictionary<string, int> used,
        IReadOnlyDictionary<string, int> quotas,
        DateTimeOffset now,
        int most = int.MaxValue)
    {
        var free = new Dictionary<string, int>(StringComparer.Ordinal);
        var suspects = new HashSet<string>(StringComparer.Ordinal);
        long all = 0;
        foreach (FreeNode node in nodes)
        {
            all += node.Free + node.Taken;
            if (node.Free <= 0)
            {
                continue;
            }
            free.Add(node.Name, node.Free);
            if (node.Suspect)
            {
                suspects.Add(node.Name);
            }
        }
        var holds = new Dictionary<string, int>(used, StringComparer.Ordinal);
        long slots = free.Values.Sum(count => (long)count);
        var granted = ImmutableArray.CreateBuilder<(JobId, ImmutableArray<string>)>();
        foreach (QueueRequest request in waiting)
        {
            if (slots == 0 || granted.Count == most)
            {
                break;
            }
            int project = holds.GetValueOrDefault(request.Project);
            if (quotas.TryGetValue(request.Project, out int quota) && project + request.Ranks > quota)
            {
                continue;  // its own project is the reason, so nobody waits for it
            }
            if (request.Ranks > slots)
            {
                if (now - request.SubmittedAt > Patience && request.Ranks <= all)
                {
                    break;
                }
                continue;
            }
            ImmutableArray<string> places = Choose(free, suspects, request);
            foreach (string node in places)
            {
                free[node]--;
            }
            slots -= request.Ranks;
            holds[request.Project] = project + request.Ranks;
            granted.Add((request.Job, places));
        }
        return granted.ToImmutable();
    }

    /// <summary>As few nodes as possible: the smallest that holds all ranks, else the largest first; avoided ones last.</summary>
    private static ImmutableArray<string> Choose(Dictionary<string, int> free, HashSet<string> suspects, QueueRequest request)
    {
        (string Name, int Free)? whole = null;
        foreach ((string name, int count) in free)
        {
            if (count >= request.Ranks && !IsAvoided(name)
                && (whole is not { } best || count < best.Free || (count == best.Free && string.CompareOrdinal(name, best.Name) < 0)))
            {
                whole = (name, count);
            }
        }
        if (whole is { } one)
        {
            return [.. Enumerable.Repeat(one.Name, request.Ranks)];
        }
        var places = ImmutableArray.CreateBuilder<string>(request.Ranks);
        foreach ((string name, int count) in free
            .OrderBy(node => IsAvoided(node.Key)).ThenByDescending(node => node.Value).ThenBy(node => node.Key, StringComparer.Ordinal))
        {
            places.AddRange(Enumerable.Repeat(name, Math.Min(count, request.Ranks - places.Count)));
            if (places.Count == request.Ranks)
            {
                break;
            }
        }
        return places.MoveToImmutable();

        bool IsAvoided(string name) => suspects.Contains(name) || request.Avoid.Contains(name);
    }
}
