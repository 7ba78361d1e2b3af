using System.Collections.Immutable;
using Trainer.Contracts;
using Trainer.Coordinator;

namespace Coordinator.Tests;

public sealed class AttemptWatchTests
{
    private static readonly DateTimeOffset s_now = new(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);
    private static readonly CoordinatorOptions s_options = new();
    private static readonly TimeSpan s_long = TimeSpan.FromMinutes(1);

    [Fact]
    public void All_processes_make_it_running_and_rank_0_reports()
    {
        Assert.Null(Judge(Job(), [Rank(0) with { Report = null }, Rank(1) with { Process = null, Alive = false }]));
        Assert.IsType<RanksStarted>(Judge(Job(), [Rank(0), Rank(1)]));
        JobRecord running = Job() with { Status = JobStatus.Running };
        Assert.IsType<RankReported>(Judge(running, [Rank(0), Rank(1)]));
        Assert.Null(Judge(running with { Progress = Rank(0).Report }, [Rank(0), Rank(1)]));
    }

    [Fact]
    public void A_dead_rank_ends_the_attempt_with_its_last_words_and_the_cause_goes_before_its_consequences()
    {
        RankState dead = Rank(1) with { Alive = false, LastWords = "killed by SIGKILL" };
        RankState follower = Rank(0) with { Alive = false, Result = Failed(FailureClass.Infrastructure, "rank 1 is gone") };

        Assert.Null(Judge(Running(), [Rank(0) with { Report = null }, dead], ended: TimeSpan.FromSeconds(1)));
        var lost = Assert.IsType<RankLost>(Judge(Running(), [follower, dead], ended: TimeSpan.FromSeconds(1)));
        Assert.Equal(("rank 1 on b: process 8 ended without a result: killed by SIGKILL", FailureClass.Infrastructure), (lost.Message, lost.Class));
        Assert.Equal("b", Assert.Single(lost.Nodes));
        Assert.IsType<RankLost>(Judge(Running(), [Rank(0), dead], ended: TimeSpan.FromSeconds(3)));
        RankState orphan = dead with { Result = Failed(FailureClass.Infrastructure, "its agent is gone") };
        RankState peer = follower with { Result = follower.Result! with { LostOthers = true } };
        // Somebody was lost: who it was is worth a longer wait, but not an endless one.
        Assert.False(Judge(Running(), [peer, Rank(1)], ended: TimeSpan.FromSeconds(9)) is RankEnded or RankLost);
        Assert.Equal(peer.Result, Assert.IsType<RankEnded>(Judge(Running(), [peer, Rank(1)], ended: TimeSpan.FromSeconds(11))).Result);
        Assert.Equal("its agent is gone", Assert.IsType<RankEnded>(Judge(Running(), [peer, orphan], ended: TimeSpan.FromSeconds(1))).Result.Message);
    }

    [Fact]
    public void A_user_error_of_any_rank_decides_at_once_and_success_of_rank_0_too()
    {
        RankState wrong = Rank(1) with { Result = Failed(FailureClass.User, "bad data") };
        Assert.Equal("bad data", Assert.IsType<RankEnded>(Judge(Running(), [Rank(0), wrong])).Result.Message);
        RankState good = Rank(0) with { Result = new RankResult { Outcome = RankOutcome.Succeeded } };
        Assert.Equal(RankOutcome.Succeeded, Assert.IsType<RankEnded>(Judge(Running(), [good, Rank(1) with { Alive = false, LastWords = "killed" }])).Result.Outcome);
    }

    [Fact]
    public void A_silent_node_keeps_its_ranks_until_the_lease_ends()
    {
        Assert.Equal("b", Assert.IsType<NodeFellSilent>(Judge(Running(), [Rank(0), Rank(1)], silent: 7)).Node);
        Assert.IsType<NodeAnswered>(Judge(Running() with { SilentNode = "b" }, [Rank(0), Rank(1)]));
        Assert.IsNotType<RankLost>(Judge(Running() with { SilentNode = "b" }, [Rank(0), Rank(1)], silent: 25));
        Assert.Equal("b", Assert.Single(Assert.IsType<RankLost>(Judge(Running(), [Rank(0), Rank(1)], silent: 31)).Nodes));
    }

    [Fact]
    public void Silence_of_a_rank_or_standstill_of_all_is_a_hang_that_ends_once_the_stacks_are_taken()
    {
        Assert.IsType<HangFound>(Judge(Running(), [Rank(0), Rank(1) with { SilentSeconds = 31 }]));
        Assert.IsType<HangFound>(Judge(Running(), [Rank(0) with { StillSeconds = 46 }, Rank(1) with { StillSeconds = 46 }]));
        Assert.IsNotType<HangFound>(Judge(Running(), [Rank(0) with { StillSeconds = 46 }, Rank(1)]));
        // One that works lets the others wait, but not for ever.
        Assert.IsNotType<HangFound>(Judge(Running(), [Rank(0) with { StillSeconds = 46 }, Rank(1) with { StillSeconds = 46, WorkedSeconds = 3 }]));
        Assert.IsType<HangFound>(Judge(Running(), [Rank(0) with { StillSeconds = 46 }, Rank(1) with { StillSeconds = 46, WorkedSeconds = 0.3 }]));
        Assert.IsType<HangFound>(Judge(Running(), [Rank(0) with { StillSeconds = 451 }, Rank(1) with { StillSeconds = 451, WorkedSeconds = 400 }]));
        JobRecord hung = Running() with { HungAt = s_now.AddSeconds(-2), Reason = "hangs" };
        Assert.IsNotType<RankLost>(Judge(hung, [Rank(0) with { StacksTaken = true }, Rank(1)]));
        Assert.Equal("hangs", Assert.IsType<RankLost>(Judge(hung, [Rank(0) with { StacksTaken = true }, Rank(1) with { StacksTaken = true }])).Message);
        Assert.IsType<RankLost>(Judge(hung with { HungAt = s_now.AddSeconds(-20) }, [Rank(0), Rank(1)]));
    }

    [Fact]
    public void A_lone_rank_may_think_for_long()
    {
        JobRecord alone = Running() with { Spec = Running().Spec with { Ranks = 1 }, Nodes = ["a"] };
        Assert.IsNotType<HangFound>(AttemptWatch.Judge(alone, [Sight("a", 0, Rank(0) with { StillSeconds = 600 })], s_options, s_now, s_long, TimeSpan.Zero));
    }

    [Fact]
    public void Draining_asks_once_and_a_rank_that_never_starts_is_lost()
    {
        Assert.IsType<NodeDraining>(AttemptWatch.Judge(Running(), [Sight("a", 0, Rank(0)), Sight("b", 0, Rank(1)) with { Draining = true }], s_options, s_now, s_long, TimeSpan.Zero));
        Assert.IsNotType<NodeDraining>(AttemptWatch.Judge(Running() with { Status = JobStatus.Stopping }, [Sight("a", 0, Rank(0)), Sight("b", 0, Rank(1)) with { Draining = true }], s_options, s_now, s_long, TimeSpan.Zero));
        Assert.IsType<RankLost>(AttemptWatch.Judge(Job(), [Sight("a", 0, Rank(0)), Sight("b", 0)], s_options, s_now, s_long, TimeSpan.Zero));
        Assert.IsNotType<RankLost>(AttemptWatch.Judge(Job(), [Sight("a", 0, Rank(0)), Sight("b", 0)], s_options, s_now, TimeSpan.FromSeconds(5), TimeSpan.Zero));
    }

    private static AttemptEvent? Judge(JobRecord job, RankState[] ranks, TimeSpan ended = default, double silent = 0) => AttemptWatch.Judge(
        job, [Sight("a", 0, ranks[0]), Sight("b", silent, ranks[1])], s_options, s_now, TimeSpan.Zero, ended);

    private static NodeSight Sight(string node, double silent, params ImmutableArray<RankState> ranks) => new() { Node = node, SilentSeconds = silent, Ranks = ranks };

    private static RankState Rank(int rank) => new()
    {
        Name = new RankName(new JobId("demo-abcd"), 1, rank),
        Process = new ProcessIdentity { Pid = 7 + rank, StartTime = 1 },
        Alive = true,
        Report = new RankReport { Attempt = 1, Pid = 7 + rank, Phase = RankPhase.Training },
    };

    private static RankResult Failed(FailureClass kind, string message) => new() { Outcome = RankOutcome.Failed, FailureClass = kind, Message = message };

    private static JobRecord Running() => Job() with { Status = JobStatus.Running };

    private static JobRecord Job() => JobLifecycle.Apply(
        JobLifecycle.Create(new JobSpec { Id = new JobId("demo-abcd"), Name = "demo", Config = "{}", Ranks = 2 }, s_now), new RoomGranted(s_now, ["a", "b"])).Job;
}
