using System.Collections.Immutable;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>
/// What the nodes say of an attempt, turned into the event that it means; a pure function. Being gone, a result, silence or
/// standing still ends an attempt; a failed call never does.
/// </summary>
public static class AttemptWatch
{
    /// <param name="job">A job with an attempt.</param>
    /// <param name="sights">One for each node of the attempt.</param>
    /// <param name="startedFor">Since the ranks were first asked for by this coordinator.</param>
    /// <param name="endedFor">Since a rank was first seen to have ended.</param>
    /// <returns>Null: nothing that matters has happened.</returns>
    public static AttemptEvent? Judge(
        JobRecord job, IReadOnlyList<NodeSight> sights, CoordinatorOptions options, DateTimeOffset now, TimeSpan startedFor, TimeSpan endedFor)
    {
        Dictionary<int, RankState> ranks = sights.SelectMany(sight => sight.Ranks).ToDictionary(rank => rank.Name.Rank);
        if (ranks.GetValueOrDefault(0)?.Result is { Outcome: RankOutcome.Succeeded } succeeded)
        {
            return new RankEnded(now, job.Attempt, succeeded);
        }
        if (sights.FirstOrDefault(sight => sight.SilentSeconds > options.NodeLease.TotalSeconds) is { } lost)
        {
            return Lost($"node {lost.Node} was lost: its agent gave no sign for {lost.SilentSeconds:0} s", lost.Node);
        }
        return Ended(job, ranks, options, now, endedFor)
            ?? Hung(job, ranks, options, now)
            ?? (AttemptEvent?)OverTime(job, sights, ranks, options, now, startedFor)
            ?? Standing(job, sights, ranks, options, now);

        RankLost Lost(string message, string node) => new(now, job.Attempt, FailureClass.Infrastructure, message, [node]);
    }

    /// <summary>A rank has ended that should not have, or all have that were asked to.</summary>
    private static AttemptEvent? Ended(JobRecord job, Dictionary<int, RankState> ranks, CoordinatorOptions options, DateTimeOffset now, TimeSpan endedFor)
    {
        RankState[] ended = [.. ranks.Values.Where(HasEnded).OrderBy(rank => rank.Name.Rank)];
        if (ended.Length == 0)
        {
            return null;
        }
        if (ended.FirstOrDefault(rank => rank.Result is { Outcome: RankOutcome.Failed, FailureClass: FailureClass.User }) is { } wrong)
        {
            return new RankEnded(now, job.Attempt, wrong.Result!);
        }
        bool all = ended.Length == job.Spec.Ranks;
        bool onlyVictims = ended.All(rank => rank.Result is { LostOthers: true });
        if (!all && endedFor < (onlyVictims ? options.CauseTakesLongest : options.CauseTakes))
        {
            return null;  // the rank that failed first may not have told yet; its peers have only lost it
        }
        if (job.Status is JobStatus.Stopping && !all && ended.All(rank => rank.Result is { Outcome: not RankOutcome.Failed }))
        {
            return null;
        }
        if (ended.FirstOrDefault(rank => rank.Result is null) is { } dead)
        {
            string who = job.Spec.Ranks == 1 ? "" : $"rank {dead.Name.Rank} on {job.Nodes[dead.Name.Rank]}: ";
            return new RankLost(now, job.Attempt, FailureClass.Infrastructure,
                dead.Process is null ? $"{who}{dead.LastWords}" : $"{who}process {dead.Process.Pid} ended without a result: {dead.LastWords ?? "killed?"}", [job.Nodes[dead.Name.Rank]]);
        }
        RankState cause = ended.OrderBy(rank => Distance(rank.Result!)).ThenBy(rank => rank.Name.Rank).First();
        return new RankEnded(now, job.Attempt, cause.Result!);

        // Of what went wrong first: the smallest is told.
        static int Distance(RankResult result) => result switch
        {
            { Outcome: not RankOutcome.Failed } => 3,
            { LostOthers: true } => 2,
            { FailureClass: not FailureClass.Unknown } => 1,
            _ => 0,
        };
    }

    private static AttemptEvent? Hung(JobRecord job, Dictionary<int, RankState> ranks, CoordinatorOptions options, DateTimeOffset now)
    {
        if (job.HungAt is { } since)
        {
            bool taken = ranks.Values.Where(rank => rank.Alive).All(rank => rank.StacksTaken);
            return taken || now - since > options.StacksTake
                ? new RankLost(now, job.Attempt, FailureClass.Infrastructure, job.Reason is { Length: > 0 } reason ? reason : "the ranks hang")
                : null;
        }
        if (ranks.Values.FirstOrDefault(rank => rank.Alive && rank.SilentSeconds > options.Silence.TotalSeconds) is { } silent)
        {
            return Hang($"rank {silent.Name.Rank} on {job.Nodes[silent.Name.Rank]} (process {silent.Process?.Pid}) gives no sign of life for {silent.SilentSeconds:0} s"
                + Where(silent));
        }
        // One that works holds up the others, who wait for it: its step is long, as on a machine that has too much to do.
        TimeSpan patience = ranks.Values.Any(rank => rank.WorkedSeconds > options.WorkingShare * rank.StillSeconds) ? options.WorkingHang : options.Hang;
        bool together = job.Spec.Ranks > 1 && ranks.Count == job.Spec.Ranks
            && ranks.Values.All(rank => rank is { Alive: true, Report.Phase: RankPhase.Training } && rank.StillSeconds > patience.TotalSeconds);
        return together ? Hang($"no rank has moved for {ranks.Values.Min(rank => rank.StillSeconds):0} s{Where(ranks[0])}") : null;

        HangFound Hang(string message) => new(now, job.Attempt, message);

        static string Where(RankState rank) => rank.Report?.Activity is { Length: > 0 } activity ? $" ({activity})" : "";
    }

    private static RankLost? OverTime(
        JobRecord job, IReadOnlyList<NodeSight> sights, Dictionary<int, RankState> ranks, CoordinatorOptions options, DateTimeOffset now, TimeSpan startedFor)
    {
        if (job.Status is JobStatus.Stopping && now - job.StopAskedAt > options.StopGrace)
        {
            return new RankLost(now, job.Attempt, FailureClass.Infrastructure, $"did not stop within {options.StopGrace.TotalSeconds:0} s");
        }
        if (startedFor <= options.StartTakes)
        {
            return null;
        }
        int missing = Enumerable.Range(0, job.Spec.Ranks).FirstOrDefault(rank => ranks.GetValueOrDefault(rank)?.Process is null, -1);
        // A node that is silent may have started it all the same.
        return missing >= 0 && sights.First(sight => sight.Node == job.Nodes[missing]) is var sight && sight.SilentSeconds < options.NodeSilence.TotalSeconds
            ? new RankLost(now, job.Attempt, FailureClass.Infrastructure,
                $"rank {missing} has no process on node {sight.Node}: {ranks.GetValueOrDefault(missing)?.LastWords ?? "it was not started, or ended while nobody looked"}", [sight.Node])
            : null;
    }

    /// <summary>Nothing has ended: whether all goes well.</summary>
    private static AttemptEvent? Standing(
        JobRecord job, IReadOnlyList<NodeSight> sights, Dictionary<int, RankState> ranks, CoordinatorOptions options, DateTimeOffset now)
    {
        if (job.SilentNode is { } silent)
        {
            if (sights.FirstOrDefault(sight => sight.Node == silent)?.SilentSeconds < options.NodeSilence.TotalSeconds)
            {
                return new NodeAnswered(now, job.Attempt, silent);
            }
        }
        else if (sights.FirstOrDefault(sight => sight.SilentSeconds > options.NodeSilence.TotalSeconds) is { } mute)
        {
            return new NodeFellSilent(now, job.Attempt, mute.Node);
        }
        if (job.Status is not JobStatus.Stopping && sights.FirstOrDefault(sight => sight.Draining) is { } draining)
        {
            return new NodeDraining(now, job.Attempt, draining.Node);
        }
        if (job.Status is JobStatus.Starting && ranks.Count == job.Spec.Ranks && ranks.Values.All(rank => rank.Process is not null))
        {
            return new RanksStarted(now, job.Attempt);
        }
        if (Trouble(job, sights, ranks) is var trouble && trouble != job.Trouble && job.Status is not JobStatus.Starting)
        {
            return new TroubleChanged(now, job.Attempt, trouble);
        }
        // What it says of its checkpoints is the catalogue's.
        return ranks.GetValueOrDefault(0)?.Report is { } report && report with { Checkpoints = null } is var told && told != job.Progress && told.Attempt == job.Attempt
            ? new RankReported(now, told)
            : null;
    }

    /// <summary>One at a time, so that a fault that many ranks see is told once; null: all is well.</summary>
    private static string? Trouble(JobRecord job, IReadOnlyList<NodeSight> sights, Dictionary<int, RankState> ranks)
    {
        if (ranks.Values.Where(rank => rank is { Alive: true, Report.Trouble: not null }).MinBy(rank => rank.Name.Rank) is { } troubled)
        {
            return $"rank {troubled.Name.Rank} on {job.Nodes[troubled.Name.Rank]}: {troubled.Report!.Trouble}";
        }
        return sights.FirstOrDefault(sight => sight.Trouble is not null) is { } node ? $"node {node.Node}: {node.Trouble}" : null;
    }

    /// <summary>Also one that could not be started.</summary>
    public static bool HasEnded(RankState rank) => rank.Result is not null || (!rank.Alive && (rank.Process is not null || rank.LastWords is not null));
}
