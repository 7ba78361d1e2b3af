using System.Diagnostics.Metrics;
using Trainer.Contracts;

namespace Trainer.Coordinator.Telemetry;

/// <summary>Every instrument of the coordinator. Names and units are OpenTelemetry's way; docs/telemetry/README.md lists what Prometheus calls them.</summary>
public sealed class CoordinatorMetrics
{
    /// <summary>What happens, and sums of what there is: a bounded number of label sets.</summary>
    public const string MeterName = "Trainer.Coordinator";

    /// <summary>A value for each running job and each node: label sets come and go with them.</summary>
    public const string LiveMeterName = "Trainer.Coordinator.Live";

    /// <summary>What each call of a grain took.</summary>
    public const string GrainCalls = "trainer.grain.call.duration";

    private const string Seconds = "s";

    /// <summary>Ways in which an attempt ends: the failure classes, and two that are no failures.</summary>
    private static readonly string[] s_endings = ["succeeded", "stopped", .. Enum.GetValues<FailureClass>().Select(kind => Spelling.Of(kind))];
    private static readonly JobStatus[] s_alive = [.. Enum.GetValues<JobStatus>().Where(status => !status.IsTerminal())];
    private static readonly JobStatus[] s_ended = [.. Enum.GetValues<JobStatus>().Where(status => status.IsTerminal())];

    /// <summary>A spelling is looked up by reflection, which thousands of jobs are not worth.</summary>
    private static readonly Dictionary<JobStatus, string> s_status = Enum.GetValues<JobStatus>().ToDictionary(status => status, status => Spelling.Of(status));

    private readonly LiveState _live;
    private readonly CoordinatorOptions _options;
    private readonly TimeProvider _time;
    private readonly Counter<long> _submitted, _ended, _placed, _attemptsStarted, _attemptsEnded, _recovered, _hung, _committed, _quarantined, _stalled;
    private readonly Histogram<double> _wait, _firstStep, _recovery, _heartbeat, _write, _call;

    public CoordinatorMetrics(IMeterFactory meters, LiveState live, CoordinatorOptions options, TimeProvider time)
    {
        _live = live;
        _options = options;
        _time = time;
        Meter meter = meters.Create(MeterName), standing = meters.Create(LiveMeterName);
        _submitted = meter.CreateCounter<long>("trainer.jobs.submitted", "{job}", "Jobs submitted.");
        _ended = meter.CreateCounter<long>("trainer.jobs.ended", "{job}", "Jobs that ended, by how.");
        _placed = meter.CreateCounter<long>("trainer.placements", "{placement}", "Jobs that the queue gave room for all their ranks.");
        _attemptsStarted = meter.CreateCounter<long>("trainer.attempts.started", "{attempt}", "Attempts started.");
        _attemptsEnded = meter.CreateCounter<long>("trainer.attempts.ended", "{attempt}", "Attempts that ended: succeeded, stopped as asked, or the class of their failure.");
        _recovered = meter.CreateCounter<long>("trainer.recoveries", "{recovery}", "Jobs that made a step again after an attempt had failed.");
        _hung = meter.CreateCounter<long>("trainer.hangs", "{hang}", "Attempts whose ranks were found to hang.");
        _committed = meter.CreateCounter<long>("trainer.checkpoints.committed", "{checkpoint}", "Checkpoints committed.");
        _quarantined = meter.CreateCounter<long>("trainer.checkpoints.quarantined", "{checkpoint}", "Checkpoints found damaged.");
        _stalled = meter.CreateCounter<long>("trainer.database.stalls", "{stall}", "Times that the coordinator's database kept a job waiting for more than three seconds.");
        _wait = Durations(meter, "trainer.queue.wait", "From the beginning of the wait for room to the room.", [0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400]);
        _firstStep = Durations(meter, "trainer.attempt.first_step", "From the start of an attempt to its first optimizer step.", [0.5, 1, 2, 3, 5, 10, 15, 30, 60, 120, 300, 900]);
        _recovery = Durations(meter, "trainer.recovery.duration", "From the failure of an attempt, once it was noticed, to the next optimizer step.", [1, 2, 5, 10, 15, 30, 60, 120, 300, 900, 3600]);
        _heartbeat = Durations(meter, "trainer.heartbeat.duration", "What answering the report of a node took.", [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]);
        _write = Durations(meter, "trainer.state.write.duration", "What the database took to store the state of a grain.", [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]);
        _call = Durations(meter, GrainCalls, "What a call of a grain took, without its wait for its turn.", [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30]);
        Observe(meter);
        ObserveJobs(standing);
        ObserveNodes(standing);
    }

    /// <summary>Counters exist from the beginning, so that a first event is an increase and not a new series.</summary>
    public void Begin()
    {
        foreach (Counter<long> counter in new[] { _recovered, _hung, _committed, _quarantined, _stalled })
        {
            counter.Add(0);
        }
        Array.ForEach(s_endings, ending => _attemptsEnded.Add(0, Tag("class", ending)));
        Array.ForEach(s_ended, status => _ended.Add(0, Tag("status", s_status[status])));
    }

    public void Submitted(string pool) => _submitted.Add(1, Tag("pool", pool));

    public void Ended(JobStatus status) => _ended.Add(1, Tag("status", s_status[status]));

    public void Placed(string pool, TimeSpan waited)
    {
        _placed.Add(1, Tag("pool", pool));
        _attemptsStarted.Add(1, Tag("pool", pool));
        _wait.Record(waited.TotalSeconds, Tag("pool", pool));
    }

    public void MadeFirstStep(TimeSpan took) => _firstStep.Record(took.TotalSeconds);

    public void Recovered(TimeSpan took)
    {
        _recovered.Add(1);
        _recovery.Record(took.TotalSeconds);
    }

    public void AttemptEnded(string ending) => _attemptsEnded.Add(1, Tag("class", ending));

    public void Hung() => _hung.Add(1);

    public void DatabaseStalled() => _stalled.Add(1);

    public void Committed(int checkpoints) => _committed.Add(checkpoints);

    public void Quarantined(int checkpoints) => _quarantined.Add(checkpoints);

    public void Heard(TimeSpan took) => _heartbeat.Record(took.TotalSeconds);

    /// <param name="grain">Whose state: "job", "checkpoints".</param>
    public void Wrote(string grain, TimeSpan took) => _write.Record(took.TotalSeconds, Tag("grain", grain));

    /// <param name="error">Kind of the exception with which it failed; null: it did not.</param>
    public void Called(string grain, TimeSpan took, string? error)
    {
        if (error is null)
        {
            _call.Record(took.TotalSeconds, Tag("grain", grain));
        }
        else
        {
            _call.Record(took.TotalSeconds, Tag("grain", grain), Tag("error.type", error));
        }
    }

    /// <summary>What a crash would cost: training since the last checkpoint, or since the attempt's first step.</summary>
    public static TimeSpan? CheckpointAge(JobRecord job, DateTimeOffset now) => job.Times.FirstStepAt is { } first && job.Status.HasAttempt()
        ? now - (job.Times.CheckpointAt is { } saved && saved > first ? saved : first)
        : null;

    private void Observe(Meter meter)
    {
        meter.CreateObservableGauge("trainer.build.info", () => new Measurement<int>(1, Tag("version", typeof(CoordinatorMetrics).Assembly.GetName().Version!.ToString(3))),
            description: "Always 1; the label tells the version.");
        meter.CreateObservableUpDownCounter("trainer.jobs", JobsByStatus, "{job}", "Jobs that have not ended, by pool and status.");
        meter.CreateObservableUpDownCounter("trainer.queue.length", () => Waiting().Select(pool => Of(pool.Pool, (long)pool.Jobs.Count())), "{job}", "Jobs that wait for room.");
        meter.CreateObservableGauge("trainer.queue.oldest_wait", () => Waiting().Select(pool => Of(pool.Pool, pool.Jobs.Select(Waited).DefaultIfEmpty().Max())), Seconds,
            "How long the job that waits longest has waited for room; 0 when none waits.");
        meter.CreateObservableUpDownCounter("trainer.slots", () => Reachable().Select(pool => Of(pool.Pool, (long)pool.Nodes.Sum(node => node.Slots))), "{slot}", "Slots of nodes that answer.");
        meter.CreateObservableUpDownCounter("trainer.slots.busy", () => Reachable().Select(pool => Of(pool.Pool, (long)pool.Nodes.Sum(node => node.Live))), "{slot}",
            "Slots of nodes that answer on which a rank lives.");
        meter.CreateObservableUpDownCounter("trainer.nodes", NodesByState, "{node}", "Nodes by pool and state.");

        double Waited(JobRecord job) => Math.Max(0, (_time.GetUtcNow() - (job.Times.QueuedAt ?? job.SubmittedAt)).TotalSeconds);
    }

    private void ObserveJobs(Meter meter)
    {
        meter.CreateObservableGauge("trainer.job.info", () => Running().Select(job => new Measurement<int>(1, Tag("job_id", job.Id.Value), Tag("name", job.Spec.Name),
            Tag("project", job.Spec.Project), Tag("pool", job.Spec.Pool), Tag("status", s_status[job.Status]))), description: "Always 1; the labels tell about a job that has an attempt.");
        Gauge("trainer.job.attempt", job => job.Attempt, null, "Number of the attempt.");
        Gauge("trainer.job.ranks", job => job.Spec.Ranks, null, "Processes that train together.");
        Gauge("trainer.job.step", job => job.Progress?.Step, null, "Optimizer steps done.");
        Gauge("trainer.job.steps", job => job.Progress is { Steps: > 0 } progress ? progress.Steps : null, null, "Optimizer steps in all.");
        Gauge("trainer.job.loss", job => job.Progress?.Loss, null, "Training loss of the newest step.");
        Gauge("trainer.job.eval_loss", job => job.Progress?.EvalLoss, null, "Newest loss on the held-out data.");
        Gauge("trainer.job.learning_rate", job => job.Progress?.LearningRate, null, "Learning rate of the newest step.");
        Gauge("trainer.job.grad_norm", job => job.Progress?.GradNorm, null, "Norm of the gradients of the newest step before clipping.");
        Gauge("trainer.job.tokens_per_second", job => job.Progress?.TokensPerSecond, null, "Tokens trained a second.");
        Gauge("trainer.job.eta", job => job.Progress?.EtaSeconds, Seconds, "Expected time to the end of the training.");
        Gauge("trainer.job.checkpoint.age", job => CheckpointAge(job, _time.GetUtcNow())?.TotalSeconds, Seconds,
            "Training since the last committed checkpoint, or since the attempt's first step: what a crash would cost.");
        Gauge("trainer.job.trouble", job => job.Trouble is null ? 0 : 1, null, "1 while something is wrong and the job goes on: a store that does not answer, a full disk.");
        Gauge("trainer.job.hung", job => job.HungAt is null ? 0 : 1, null, "1 while the ranks of the attempt are found to hang.");

        void Gauge(string name, Func<JobRecord, double?> value, string? unit, string description) => meter.CreateObservableGauge(name, () => Values(value), unit, description);

        IEnumerable<Measurement<double>> Values(Func<JobRecord, double?> value)
        {
            foreach (JobRecord job in Running())
            {
                if (value(job) is { } known)
                {
                    yield return new Measurement<double>(known, Tag("job_id", job.Id.Value));
                }
            }
        }
    }

    private void ObserveNodes(Meter meter)
    {
        meter.CreateObservableGauge("trainer.node.report.age", () => _live.Nodes.Select(node => Of(node, _time.GetElapsedTime(node.Heard).TotalSeconds)), Seconds,
            "Since the node's last report.");
        meter.CreateObservableGauge("trainer.node.strikes", () => _live.Nodes.Select(node => Of(node, node.Strikes)), "{strike}", "Failures of late that may lie in the machine.");
        meter.CreateObservableGauge("trainer.node.slots", () => _live.Nodes.Select(node => Of(node, node.Slots)), "{slot}", "Slots of the node.");
        meter.CreateObservableGauge("trainer.node.slots.busy", () => _live.Nodes.Select(node => Of(node, node.Live)), "{slot}", "Slots on which a rank lives.");

        static Measurement<double> Of(NodeStanding node, double value) => new(value, Tag("node", node.Node), Tag("pool", node.Pool));
    }

    private IEnumerable<Measurement<long>> JobsByStatus()
    {
        var counts = _live.Jobs.CountBy(job => (job.Spec.Pool, job.Status)).ToDictionary();
        return Pools().SelectMany(pool => s_alive.Select(status =>
            new Measurement<long>(counts.GetValueOrDefault((pool, status)), Tag("pool", pool), Tag("status", s_status[status]))));
    }

    private IEnumerable<Measurement<long>> NodesByState()
    {
        var counts = _live.Nodes.CountBy(node => (node.Pool, State(node))).ToDictionary();
        return Pools().SelectMany(pool => NodeStanding.States.Select(state =>
            new Measurement<long>(counts.GetValueOrDefault((pool, state)), Tag("pool", pool), Tag("state", state))));
    }

    /// <summary>Of every pool, also where none waits.</summary>
    private IEnumerable<(string Pool, IEnumerable<JobRecord> Jobs)> Waiting()
    {
        ILookup<string, JobRecord> waiting = _live.Jobs.Where(job => job.Status is JobStatus.Queued).ToLookup(job => job.Spec.Pool, StringComparer.Ordinal);
        return Pools().Select(pool => (pool, waiting[pool]));
    }

    private IEnumerable<(string Pool, IEnumerable<NodeStanding> Nodes)> Reachable()
    {
        ILookup<string, NodeStanding> nodes = _live.Nodes.Where(node => State(node) is not ("lost" or "unreachable")).ToLookup(node => node.Pool, StringComparer.Ordinal);
        return Pools().Select(pool => (pool, nodes[pool]));
    }

    private IEnumerable<JobRecord> Running() => _live.Jobs.Where(job => job.Status.HasAttempt());

    private SortedSet<string> Pools() => new(_live.Jobs.Select(job => job.Spec.Pool).Concat(_live.Nodes.Select(node => node.Pool)), StringComparer.Ordinal);

    private string State(NodeStanding node) => node.State(_time.GetElapsedTime(node.Heard), _options);

    private static Histogram<double> Durations(Meter meter, string name, string description, double[] bounds) =>
        meter.CreateHistogram(name, Seconds, description, tags: null, new InstrumentAdvice<double> { HistogramBucketBoundaries = bounds });

    private static Measurement<T> Of<T>(string pool, T value) where T : struct => new(value, Tag("pool", pool));

    private static KeyValuePair<string, object?> Tag(string key, string value) => new(key, value);
}
