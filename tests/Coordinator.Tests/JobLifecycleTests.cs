using System.Collections.Immutable;
using Trainer.Contracts;
using Trainer.Coordinator;

namespace Coordinator.Tests;

public sealed class JobLifecycleTests
{
    private static readonly DateTimeOffset s_start = new(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);
    private static readonly JobSpec s_spec = new() { Id = new JobId("demo-abcd"), Name = "demo", Config = "{}" };

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public void Any_sequence_of_events_keeps_the_promises(int seed)
    {
        var random = new Random(seed);
        for (int round = 0; round < 300; round++)
        {
            JobRecord job = JobLifecycle.Create(s_spec with { Paused = random.Next(2) == 0 }, s_start);
            var running = new HashSet<int>();
            for (int i = 0; i < 60; i++)
            {
                JobEvent happened = Any(random, job, s_start.AddSeconds(i));
                (JobRecord next, ImmutableArray<JobEffect> effects) = JobLifecycle.Apply(job, happened);

                Assert.InRange(next.Attempt, job.Attempt, job.Attempt + 1);
                if (happened is AttemptEvent old && (old.Attempt != job.Attempt || !job.Status.HasAttempt()))
                {
                    Assert.Equal(job, next);
                    Assert.Empty(effects);
                }
                if (job.Status is JobStatus.Succeeded || (job.Status.IsTerminal() && happened is not ResumeAsked))
                {
                    Assert.Equal(job, next);
                    Assert.Empty(effects);
                }
                if (next.Status.IsTerminal() && !job.Status.IsTerminal())
                {
                    Assert.Contains(new Retire(), effects);
                    Assert.NotNull(next.EndedAt);
                }
                foreach (JobEffect effect in effects)
                {
                    if (effect is StartRanks start)
                    {
                        Assert.Equal(job.Attempt + 1, start.Attempt);
                        Assert.Equal(JobStatus.Starting, next.Status);
                        running.Add(start.Attempt);
                    }
                    else if (effect is KillRanks kill)
                    {
                        running.RemoveWhere(attempt => attempt <= kill.UpTo);
                    }
                }
                Assert.True(running.Count <= 1, $"attempts {string.Join(", ", running)} run at once");
                Assert.Equal(next.Status.HasAttempt(), running.Contains(next.Attempt));
                Assert.Equal(next.History.Select(entry => entry.Sequence), Enumerable.Range(next.History[0].Sequence, next.History.Length));
                job = next;
            }
        }
    }

    [Theory]
    [InlineData(FailureClass.User, 0)]
    [InlineData(FailureClass.Unknown, 3)]
    [InlineData(FailureClass.Infrastructure, 10)]
    public void Each_class_of_failure_has_its_budget(FailureClass kind, int retries)
    {
        JobRecord job = Started();
        for (int i = 0; i < retries; i++)
        {
            job = Apply(job, Failed(job, kind));
            Assert.Equal(JobStatus.Retrying, job.Status);
            job = Apply(Apply(job, new RetryDue(job.RetryAt!.Value)), Granted());
            Assert.Equal(i + 2, job.Attempt);
        }

        job = Apply(job, Failed(job, kind));

        Assert.Equal(JobStatus.Failed, job.Status);
        Assert.StartsWith("bad luck", job.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Pauses_between_attempts_double_up_to_a_minute()
    {
        JobRecord job = Started();
        var pauses = new List<double>();
        while (job.Status is not JobStatus.Failed)
        {
            job = Apply(job, new RankLost(s_start, job.Attempt, FailureClass.Infrastructure, "killed"));
            pauses.Add(job.RetryAt is { } due ? (due - s_start).TotalSeconds : 0);
            job = Apply(Apply(job, new RetryDue(s_start)), Granted());
        }

        Assert.Equal([1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 0], pauses);
    }

    [Fact]
    public void A_newer_checkpoint_gives_the_budgets_back()
    {
        JobRecord job = Started();
        for (int i = 0; i < 50; i++)
        {
            job = Apply(job, new RankReported(s_start, new RankReport { Attempt = job.Attempt, Pid = 1, LastCheckpointStep = i + 1 }));
            job = Apply(job, new RankLost(s_start, job.Attempt, FailureClass.Infrastructure, "killed"));
            job = Apply(Apply(job, new RetryDue(s_start)), Granted());
        }

        Assert.Equal(JobStatus.Starting, job.Status);
        Assert.Equal(51, job.Attempt);
    }

    [Fact]
    public void Cancelling_waits_for_the_rank_and_resuming_makes_a_new_attempt()
    {
        JobRecord job = Apply(Started(), new CancelAsked(s_start));
        Assert.Equal(JobStatus.Stopping, job.Status);

        job = Apply(job, new RankEnded(s_start, 1, new RankResult { Outcome = RankOutcome.Cancelled, Step = 7 }));
        Assert.Equal(JobStatus.Cancelled, job.Status);
        Assert.Equal(7, job.Progress!.Step);

        job = Apply(Apply(job, new ResumeAsked(s_start)), Granted());
        Assert.Equal((JobStatus.Starting, 2), (job.Status, job.Attempt));
        Assert.Null(job.EndedAt);
    }

    [Fact]
    public void A_rank_that_dies_while_it_is_stopped_is_cancelled_and_one_that_finishes_first_has_succeeded()
    {
        JobRecord stopping = Apply(Started(), new CancelAsked(s_start));

        Assert.Equal(JobStatus.Cancelled, Apply(stopping, new RankLost(s_start, 1, FailureClass.Infrastructure, "gone")).Status);
        Assert.Equal(JobStatus.Succeeded, Apply(stopping, new RankEnded(s_start, 1, new RankResult { Outcome = RankOutcome.Succeeded })).Status);
    }

    [Fact]
    public void Pausing_keeps_the_job_and_draining_queues_it_again()
    {
        var stopped = new RankResult { Outcome = RankOutcome.Cancelled, Step = 7 };
        JobRecord paused = Apply(Apply(Started(), new PauseAsked(s_start)), new RankEnded(s_start, 1, stopped));
        JobRecord drained = Apply(Apply(Started(), new NodeDraining(s_start, 1, "node")), new RankEnded(s_start, 1, stopped));

        Assert.Equal((JobStatus.Paused, "paused"), (paused.Status, paused.Reason));
        Assert.Equal((JobStatus.Starting, 2), (Apply(Apply(paused, new ResumeAsked(s_start)), Granted()).Status, Apply(Apply(paused, new ResumeAsked(s_start)), Granted()).Attempt));
        Assert.Equal(JobStatus.Queued, drained.Status);
        Assert.Equal(new FailureCounts(), drained.Failures);
        Assert.Equal(JobStatus.Cancelled, Apply(Apply(Apply(Started(), new NodeDraining(s_start, 1, "node")), new CancelAsked(s_start)), new RankEnded(s_start, 1, stopped)).Status);
    }

    [Fact]
    public void While_a_job_stops_the_last_wish_holds()
    {
        JobRecord pausing = Apply(Started(), new PauseAsked(s_start)), cancelling = Apply(Started(), new CancelAsked(s_start));
        Assert.Equal(("pauses after a last checkpoint", "ends after a last checkpoint"), (pausing.Reason, cancelling.Reason));
        foreach (JobRecord stopping in (JobRecord[])[pausing, cancelling])
        {
            JobRecord resumed = Apply(stopping, new ResumeAsked(s_start));
            Assert.Equal((JobStatus.Stopping, "stops after a last checkpoint, then goes on"), (resumed.Status, resumed.Reason));
            Assert.Equal("resumed: goes on once it has stopped", resumed.History[^1].Text);
            Assert.Equal(resumed, Apply(resumed, new ResumeAsked(s_start)));
            Assert.Equal((JobStatus.Starting, 2), (Apply(Stopped(resumed), Granted()).Status, Apply(Stopped(resumed), Granted()).Attempt));

            Assert.Equal(JobStatus.Paused, Stopped(Apply(resumed, new PauseAsked(s_start))).Status);
            Assert.Equal(JobStatus.Cancelled, Stopped(Apply(resumed, new CancelAsked(s_start))).Status);
        }
        Assert.Equal(JobStatus.Paused, Stopped(Apply(cancelling, new PauseAsked(s_start))).Status);
        Assert.Equal(JobStatus.Cancelled, Stopped(Apply(pausing, new CancelAsked(s_start))).Status);

        static JobRecord Stopped(JobRecord job) => Apply(job, new RankEnded(s_start, 1, new RankResult { Outcome = RankOutcome.Cancelled, Step = 7 }));
    }

    [Fact]
    public void A_resume_while_a_job_stops_gives_the_budgets_back()
    {
        JobRecord job = Started();
        job = Apply(job, new RankLost(s_start, 1, FailureClass.Infrastructure, "killed", ["node"]));
        job = Apply(Apply(Apply(job, new RetryDue(s_start)), Granted()), new PauseAsked(s_start));
        Assert.Equal((1, 1), (job.Failures.Infrastructure, job.Avoid.Length));

        job = Apply(job, new ResumeAsked(s_start));
        Assert.Equal((0, 0), (job.Failures.Infrastructure, job.Avoid.Length));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Checkpoints_that_an_attempt_refused_are_told_once_and_are_its_reason(bool isReported)
    {
        const string Setback = "no use of damaged checkpoints: step 40 (a byte); goes on from step 0";
        JobRecord job = Apply(Started(), new RankReported(s_start, new RankReport { Attempt = 1, Pid = 1, LastCheckpointStep = 40 }));
        job = Apply(job, new RankLost(s_start, 1, FailureClass.Infrastructure, "killed"));
        job = Apply(Apply(job, new RetryDue(s_start)), Granted());
        for (int step = 1; isReported && step < 3; step++)
        {
            job = Apply(job, new RankReported(s_start, new RankReport { Attempt = 2, Pid = 1, Step = step, Setback = Setback }));
            Assert.Equal((JobStatus.Running, Setback, null), (job.Status, job.Reason, job.LastCheckpointStep));
        }
        if (isReported)
        {
            JobRecord troubled = Apply(job, new TroubleChanged(s_start, 2, "the disk is full"));
            Assert.Equal("the disk is full", troubled.Reason);
            Assert.Equal(Setback, Apply(troubled, new TroubleChanged(s_start, 2, null)).Reason);
        }

        // An attempt may be over before it has reported.
        job = Apply(job, new RankEnded(s_start, 2, new RankResult { Outcome = RankOutcome.Succeeded, Step = 3, Steps = 3, Setback = Setback }));
        Assert.Equal((JobStatus.Succeeded, 3, 3), (job.Status, job.Progress!.Step, job.Progress.Steps));
        Assert.Single(job.History, entry => entry.Text == Setback);
    }

    [Fact]
    public void An_attempt_that_is_stopped_while_it_loads_keeps_the_step_of_the_jobs_checkpoint()
    {
        JobRecord job = Apply(Started(), new RankReported(s_start, new RankReport { Attempt = 1, Pid = 1, Phase = RankPhase.Training, Step = 42, LastCheckpointStep = 40 }));
        job = Apply(job, new RankLost(s_start, 1, FailureClass.Infrastructure, "killed"));
        job = Apply(Apply(Apply(job, new RetryDue(s_start)), Granted()), new PauseAsked(s_start));
        job = Apply(job, new RankEnded(s_start, 2, new RankResult { Outcome = RankOutcome.Cancelled }));
        Assert.Equal((JobStatus.Paused, 40, 40), (job.Status, job.Progress!.Step, job.LastCheckpointStep));
        Assert.Equal("paused: before it went on from step 40", job.History[^1].Text);
    }

    [Fact]
    public void A_checkpoint_that_has_vanished_is_told_once_and_is_the_reason()
    {
        JobRecord job = Apply(Started(), new RankReported(s_start, new RankReport { Attempt = 1, Pid = 1, Phase = RankPhase.Training, LastCheckpointStep = 40 }));
        job = Apply(job, new RankLost(s_start, 1, FailureClass.Infrastructure, "killed"));
        job = Apply(Apply(job, new RetryDue(s_start)), Granted());
        job = Apply(job, new RankReported(s_start, new RankReport { Attempt = 2, Pid = 1, Phase = RankPhase.Loading }));
        Assert.Equal(40, job.LastCheckpointStep);
        const string Gone = "the checkpoint of step 40 was not found; goes on from step 30";
        foreach (int step in (int[])[31, 32])
        {
            job = Apply(job, new RankReported(s_start, new RankReport { Attempt = 2, Pid = 1, Phase = RankPhase.Training, Step = step, LastCheckpointStep = 30 }));
            Assert.Equal((JobStatus.Running, Gone, 30), (job.Status, job.Reason, job.LastCheckpointStep));
        }
        Assert.Single(job.History, entry => entry.Text == Gone);

        // Of none at all.
        job = Apply(job, new RankLost(s_start, 2, FailureClass.Infrastructure, "killed"));
        job = Apply(Apply(job, new RetryDue(s_start)), Granted());
        job = Apply(job, new RankReported(s_start, new RankReport { Attempt = 3, Pid = 1, Phase = RankPhase.Training }));
        Assert.Equal("the checkpoint of step 30 was not found; goes on from step 0", job.Reason);
        Assert.Null(job.LastCheckpointStep);
    }

    [Fact]
    public void A_silent_node_is_told_once_and_its_answer_too()
    {
        JobRecord job = Started();
        for (int i = 0; i < 3; i++)
        {
            job = Apply(job, new NodeFellSilent(s_start, 1, "node"));
        }
        job = Apply(job, new NodeAnswered(s_start, 1, "node"));

        Assert.Equal(["submitted", "attempt 1 starts on node", "node node does not answer; waiting for it", "node node answers again"], job.History.Select(entry => entry.Text));
        Assert.True(job.Status.HasAttempt());
    }

    [Fact]
    public void Persisted_enums_are_frozen()
    {
        Assert.Equal("Paused=0 Queued=1 Starting=2 Running=3 Retrying=4 Stopping=5 Succeeded=10 Failed=11 Cancelled=12", Members<JobStatus>());
        Assert.Equal("Loading=0 Preparing=1 Training=2 Evaluating=3 Saving=4 Exporting=5", Members<RankPhase>());
        Assert.Equal("Continue=0 Stop=1 Fenced=2", Members<RankOrder>());
        Assert.Equal("Succeeded=0 Failed=1 Cancelled=2 Interrupted=3", Members<RankOutcome>());
        Assert.Equal("User=0 Infrastructure=1 Unknown=2", Members<FailureClass>());
        Assert.Equal("Cancel=0 Pause=1 Requeue=2", Members<StopIntent>());
        Assert.Equal("Cpu=0 Cuda=1", Members<SlotKind>());
        Assert.Equal("Committed=0 Quarantined=1 Removed=2", Members<CheckpointStatus>());

        static string Members<T>() where T : struct, Enum => string.Join(' ', Enum.GetValues<T>().Select(value => $"{value}={value:D}"));
    }

    private static JobRecord Started() => Apply(JobLifecycle.Create(s_spec, s_start), Granted());

    private static RoomGranted Granted() => new(s_start, ["node"]);

    private static JobRecord Apply(JobRecord job, JobEvent happened) => JobLifecycle.Apply(job, happened).Job;

    private static RankEnded Failed(JobRecord job, FailureClass kind) =>
        new(s_start, job.Attempt, new RankResult { Outcome = RankOutcome.Failed, FailureClass = kind, Message = "bad luck" });

    private static JobEvent Any(Random random, JobRecord job, DateTimeOffset at)
    {
        int attempt = Math.Max(0, job.Attempt - random.Next(0, 4) / 3);
        return random.Next(15) switch
        {
            0 => new RoomGranted(at, ["a", "b"]),
            1 => new RoomMissing(at, "busy"),
            2 => new RetryDue(at),
            3 => new CancelAsked(at),
            4 => new ResumeAsked(at),
            5 => new RanksStarted(at, attempt),
            6 => new RankReported(at, new RankReport { Attempt = attempt, Pid = 1, Step = random.Next(100), LastCheckpointStep = random.Next(100) }),
            7 => new RankEnded(at, attempt, new RankResult { Outcome = (RankOutcome)random.Next(4), FailureClass = (FailureClass)random.Next(3) }),
            8 => new PauseAsked(at),
            9 => new PriorityAsked(at, random.Next(-3, 3)),
            10 => new HangFound(at, attempt, "hangs"),
            11 => new NodeFellSilent(at, attempt, random.Next(2) == 0 ? "a" : "b"),
            12 => new NodeAnswered(at, attempt, random.Next(2) == 0 ? "a" : "b"),
            13 => new NodeDraining(at, attempt, "a"),
            _ => new RankLost(at, attempt, (FailureClass)random.Next(3), "lost", random.Next(2) == 0 ? ["b"] : default),
        };
    }
}
