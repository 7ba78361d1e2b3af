using System.Collections.Immutable;
using System.Diagnostics;
using Trainer.Contracts;
using Trainer.Coordinator;

namespace Coordinator.Tests;

public sealed class PlacementTests
{
    private static readonly DateTimeOffset s_start = new(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);
    private static readonly Dictionary<string, int> s_none = [];

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void All_ranks_or_none_and_never_more_than_there_is(int seed)
    {
        var random = new Random(seed);
        for (int round = 0; round < 2000; round++)
        {
            FreeNode[] nodes = [.. Enumerable.Range(0, random.Next(8)).Select(i => new FreeNode($"n{i}", random.Next(-1, 9), random.Next(4), random.Next(4) == 0))];
            QueueRequest[] waiting = [.. Enumerable.Range(0, random.Next(12)).Select(i => Request($"job-{i}", random.Next(1, 10), random.Next(-2, 3),
                s_start.AddSeconds(-random.Next(1200)), random.Next(2) == 0 ? "a" : "b", [$"n{random.Next(8)}"])).OrderBy(Placement.Order)];
            Dictionary<string, int> quotas = random.Next(2) == 0 ? [] : new() { ["a"] = random.Next(12) };
            Dictionary<string, int> used = new() { ["a"] = random.Next(4) };

            ImmutableArray<(JobId Job, ImmutableArray<string> Nodes)> granted = Placement.Decide(nodes, waiting, used, quotas, s_start);

            foreach ((JobId job, ImmutableArray<string> places) in granted)
            {
                Assert.Equal(waiting.Single(request => request.Job == job).Ranks, places.Length);
            }
            Assert.Equal(granted.Length, granted.Select(grant => grant.Job).Distinct().Count());
            foreach (IGrouping<string, string> node in granted.SelectMany(grant => grant.Nodes).GroupBy(name => name))
            {
                Assert.InRange(node.Count(), 1, nodes.Single(known => known.Name == node.Key).Free);
            }
            if (quotas.TryGetValue("a", out int most))
            {
                int taken = granted.Where(grant => waiting.Single(request => request.Job == grant.Job).Project == "a").Sum(grant => grant.Nodes.Length);
                Assert.True(taken == 0 || taken + used["a"] <= most);
            }
            // Whoever was not granted does not fit into what is left, unless somebody before waits with patience gone or a quota.
            int all = nodes.Sum(node => node.Free + node.Taken), left = nodes.Sum(node => Math.Max(0, node.Free)) - granted.Sum(grant => grant.Nodes.Length);
            bool kept = false;
            foreach (QueueRequest request in waiting.Where(request => granted.All(grant => grant.Job != request.Job)))
            {
                bool overQuota = quotas.ContainsKey(request.Project);
                Assert.True(kept || overQuota || request.Ranks > left, $"{request.Job} would fit");
                kept |= s_start - request.SubmittedAt > Placement.Patience && request.Ranks <= all;
            }
        }
    }

    [Fact]
    public void A_large_job_is_passed_only_until_its_patience_ends()
    {
        QueueRequest large = Request("large", 4, 0, s_start), small = Request("small", 1, 0, s_start.AddSeconds(1));

        Assert.Equal(["small"], Granted(s_start.AddMinutes(1), new FreeNode("n", 3, Taken: 1)));
        Assert.Empty(Granted(s_start.AddMinutes(11), new FreeNode("n", 3, Taken: 1)));
        // Nobody waits for one that could not start if all were free.
        Assert.Equal(["small"], Granted(s_start.AddMinutes(11), new FreeNode("n", 3)));

        string[] Granted(DateTimeOffset now, FreeNode node) => [.. Placement.Decide([node], [large, small], s_none, s_none, now).Select(grant => grant.Job.Value)];
    }

    [Fact]
    public void Priority_goes_first_and_waiting_makes_up_for_it()
    {
        QueueRequest old = Request("old", 1, 0, s_start), urgent = Request("urgent", 1, 5, s_start.AddMinutes(20)), late = Request("late", 1, 5, s_start.AddMinutes(26));
        Assert.Equal(["urgent", "old", "late"], new[] { late, old, urgent }.OrderBy(Placement.Order).Select(request => request.Job.Value));
    }

    [Fact]
    public void A_gang_takes_the_smallest_node_that_holds_it_and_avoids_bad_ones()
    {
        Assert.Equal(["b", "b"], Only([new("a", 8), new("b", 2), new("c", 4)], Request("j", 2, 0, s_start)));
        Assert.Equal(["a", "a"], Only([new("a", 8), new("b", 2, Suspect: true)], Request("j", 2, 0, s_start)));
        Assert.Equal(["a", "a"], Only([new("a", 2), new("b", 2)], Request("j", 2, 0, s_start, avoid: ["b"])));
        Assert.Equal(["b", "b"], Only([new("b", 2)], Request("j", 2, 0, s_start, avoid: ["b"])));
        Assert.Equal(["c", "c", "c", "a"], Only([new("a", 2), new("b", 1), new("c", 3)], Request("j", 4, 0, s_start)));

        static string[] Only(FreeNode[] nodes, QueueRequest request) => [.. Placement.Decide(nodes, [request], s_none, s_none, s_start).Single().Nodes];
    }

    [Fact]
    public void Fifteen_thousand_jobs_on_a_thousand_nodes_are_decided_in_a_moment()
    {
        FreeNode[] nodes = [.. Enumerable.Range(0, 1000).Select(i => new FreeNode($"n{i}", 8))];
        QueueRequest[] waiting = [.. Enumerable.Range(0, 15000).Select(i => Request($"j{i}", 1 << (i % 5), 0, s_start.AddSeconds(i)))];
        long start = Stopwatch.GetTimestamp();
        int granted = Placement.Decide(nodes, waiting, s_none, s_none, s_start).Length;
        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        Assert.True(granted / seconds > 200, $"{granted} gangs in {seconds:0.00} s");
    }

    private static QueueRequest Request(string job, int ranks, int priority, DateTimeOffset at, string project = "a", ImmutableArray<string> avoid = default) => new()
    {
        Job = new JobId(job), Ranks = ranks, Priority = priority, SubmittedAt = at, Project = project, Avoid = avoid.IsDefault ? [] : avoid,
    };
}
