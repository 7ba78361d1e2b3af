using System.Buffers;
using System.Diagnostics.Metrics;
using System.Net;
using System.Text;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Microsoft.Extensions.DependencyInjection;
using OpenTelemetry;
using OpenTelemetry.Metrics;
using Trainer.Contracts;
using Trainer.Coordinator;
using Trainer.Coordinator.Telemetry;

namespace Coordinator.Tests;

/// <summary>What Prometheus is told is true, well-formed and cheap, and dashboard and rules ask for nothing else.</summary>
// Alone: the engine counts the grains of the whole process, where coordinators of other tests end that had begun unseen.
[CollectionDefinition(nameof(TelemetryTests), DisableParallelization = true)]
[Collection(nameof(TelemetryTests))]
public sealed partial class TelemetryTests : IAsyncLifetime
{
    private static readonly string s_docs = Path.Combine(Promtool.Root(), "docs/telemetry");

    private readonly TestHome _home = new();
    private TestCoordinator? _host;
    private CoordinatorClient? _client, _agent;
    private HttpClient? _http;

    private CoordinatorClient Client => _client!;

    public async Task InitializeAsync()
    {
        _host = await _home.StartAsync();
        _client = new CoordinatorClient(_home.Home.Socket);
        _agent = new CoordinatorClient(_home.Home.AgentSocket);
        _http = new HttpClient(new SocketsHttpHandler { ConnectCallback = async (_, cancellationToken) => await ConnectAsync(cancellationToken) });
    }

    public async Task DisposeAsync()
    {
        Client.Dispose();
        _agent!.Dispose();
        _http!.Dispose();
        await _host!.DisposeAsync();
        _home.Dispose();
    }

    [Fact]
    public async Task A_scrape_tells_what_happened_and_promtool_finds_no_fault_in_it()
    {
        JobId job = (await Client.SubmitAsync(new SubmitRequest { Config = _home.Job() })).Id;
        await TestHome.UntilAsync(Client, job, JobStatus.Running, 1);
        await BeatAsync(job, 1, step: 4, checkpoint: 3);
        _home.Do(job, 1, "crash");
        await TestHome.UntilAsync(Client, job, JobStatus.Running, 2);
        await BeatAsync(job, 2, step: 5, checkpoint: 3);
        JobId waits = (await Client.SubmitAsync(new SubmitRequest { Config = _home.Job("wide") with { Resources = new ResourcesConfig { Ranks = 64 } } })).Id;
        await TestHome.UntilAsync(Client, waits, view => view.Reason?.Contains("slots are needed", StringComparison.Ordinal) == true);

        string text = await TextAsync();
        Scrape scrape = Scrape.Read(text);
        Assert.Equal((0, ""), await Promtool.RunAsync(s_docs, text, "check", "metrics"));
        Assert.Equal(1, scrape.Value("trainer_jobs", ("status", "running"), ("pool", "default")));
        Assert.Equal(1, scrape.Value("trainer_jobs", ("status", "queued"), ("pool", "default")));
        Assert.Equal(0, scrape.Value("trainer_jobs", ("status", "retrying"), ("pool", "default")));
        Assert.Equal(1, scrape.Value("trainer_queue_length", ("pool", "default")));
        Assert.InRange(scrape.Value("trainer_queue_oldest_wait_seconds", ("pool", "default"))!.Value, 0.001, 60);
        Assert.Equal(2, scrape.Value("trainer_jobs_submitted_total"));
        Assert.Equal(2, scrape.Value("trainer_placements_total"));
        Assert.Equal(2, scrape.Value("trainer_attempts_started_total"));
        Assert.Equal(1, scrape.Value("trainer_attempts_ended_total", ("class", "infrastructure")));
        Assert.Equal(0, scrape.Value("trainer_attempts_ended_total", ("class", "user")));
        Assert.Equal(1, scrape.Value("trainer_recoveries_total"));
        Assert.Equal(1, scrape.Value("trainer_recovery_duration_seconds_count"));
        Assert.InRange(scrape.Value("trainer_recovery_duration_seconds_sum")!.Value, 0.5, 20);
        Assert.Equal(2, scrape.Value("trainer_attempt_first_step_seconds_count"));
        Assert.Equal(2, scrape.Value("trainer_queue_wait_seconds_count"));
        Assert.Equal(0, scrape.Value("trainer_hangs_total"));
        Assert.Equal(1, scrape.Value("trainer_nodes", ("state", "ready")));
        Assert.Equal(1, scrape.Value("trainer_slots_busy"));
        Assert.InRange(scrape.Value("trainer_heartbeat_duration_seconds_count")!.Value, 2, 10_000);
        Assert.InRange(scrape.Value("trainer_state_write_duration_seconds_count", ("grain", "job"))!.Value, 5, 100);
        Assert.True(scrape.Value("trainer_grain_call_duration_seconds_count", ("grain", "job")) > 5);
        Assert.True(scrape.Samples.Where(sample => sample.Name == "orleans_grains").Sum(sample => sample.Value) >= 5);
        Assert.Equal(5, scrape.Value("trainer_job_step", ("job_id", job.Value)));
        Assert.Equal(2.5, scrape.Value("trainer_job_loss", ("job_id", job.Value)));
        Assert.Equal(1e-3, scrape.Value("trainer_job_learning_rate", ("job_id", job.Value)));
        Assert.Equal(0.75, scrape.Value("trainer_job_grad_norm", ("job_id", job.Value)));
        Assert.Equal(2, scrape.Value("trainer_job_attempt", ("job_id", job.Value)));
        Assert.Equal(1, scrape.Value("trainer_job_info", ("job_id", job.Value), ("name", "demo"), ("status", "running")));
        Assert.InRange(scrape.Value("trainer_job_checkpoint_age_seconds", ("job_id", job.Value))!.Value, 0, 30);
        Assert.Equal(1, scrape.Value("trainer_job_trouble", ("job_id", job.Value)));
        Assert.DoesNotContain(scrape.Samples, sample => sample.Labels.GetValueOrDefault("job_id") == waits.Value);
        Assert.True(scrape.Value("http_server_request_duration_seconds_count", ("http_route", "/v1/jobs"), ("http_request_method", "POST")) == 2);
        Assert.True(scrape.Value("dotnet_process_memory_working_set_bytes") > 1 << 20);
        Histograms(scrape);

        _home.Do(job, 2, RankOutcome.Succeeded);
        await TestHome.UntilAsync(Client, job, JobStatus.Succeeded, 2);
        scrape = Scrape.Read(await TextAsync());
        Assert.Equal(1, scrape.Value("trainer_jobs_ended_total", ("status", "succeeded")));
        Assert.Equal(1, scrape.Value("trainer_attempts_ended_total", ("class", "succeeded")));
        Assert.DoesNotContain(scrape.Samples, sample => sample.Labels.GetValueOrDefault("job_id") == job.Value);
    }

    [Fact]
    public async Task OpenMetrics_is_told_to_whoever_prefers_it()
    {
        Assert.Equal("text/plain; version=0.0.4; charset=utf-8", await TypeAsync("*/*"));
        Assert.Equal("text/plain; version=0.0.4; charset=utf-8", await TypeAsync("text/plain;version=0.0.4;q=0.5, application/openmetrics-text;version=1.0.0;q=0.3"));
        Assert.Equal("text/plain; version=0.0.4; charset=utf-8", await TypeAsync("application/openmetrics-text;version=7.0.0, */*;q=0.1"));
        const string prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        Assert.Equal("application/openmetrics-text; version=1.0.0; charset=utf-8", await TypeAsync(prometheus));

        string open = await TextAsync(prometheus);
        Assert.EndsWith("\n# EOF\n", open, StringComparison.Ordinal);
        Assert.Contains("# TYPE trainer_hangs counter\ntrainer_hangs_total 0\n", open, StringComparison.Ordinal);
        string plain = await TextAsync();
        Assert.DoesNotContain("# EOF", plain, StringComparison.Ordinal);
        Assert.Contains("# TYPE trainer_hangs_total counter\ntrainer_hangs_total 0\n", plain, StringComparison.Ordinal);
        Assert.Contains("_bucket{le=\"1.0\"}", open.Replace("grain=\"job\",", "", StringComparison.Ordinal), StringComparison.Ordinal);

        async Task<string> TypeAsync(string accept)
        {
            using HttpResponseMessage response = await GetAsync(accept);
            return response.Content.Headers.ContentType!.ToString();
        }
    }

    [Fact]
    public async Task A_monitor_reads_the_metrics_and_nothing_else()
    {
        await using OpenCoordinator open = await OpenCoordinator.StartAsync();
        Assert.Equal(HttpStatusCode.OK, await open.StatusAsync("m", HttpMethod.Get, "/metrics"));
        Assert.Equal(HttpStatusCode.OK, await open.StatusAsync("x", HttpMethod.Get, "/metrics"));
        Assert.Equal(HttpStatusCode.Forbidden, await open.StatusAsync("a", HttpMethod.Get, "/metrics"));
        Assert.Equal(HttpStatusCode.Forbidden, await open.StatusAsync("w", HttpMethod.Get, "/metrics"));
        Assert.Equal(HttpStatusCode.Unauthorized, await open.StatusAsync(null, HttpMethod.Get, "/metrics"));
        Assert.Equal(HttpStatusCode.Forbidden, await open.StatusAsync("m", HttpMethod.Get, "/v1/jobs"));
    }

    [Fact]
    public async Task Whatever_stands_in_a_label_is_read_back_as_it_was()
    {
        string[] hostile = ["a\"b", "a\\", "\\n", "two\nlines", "\"} 1\ntrainer_fake 7", "<script>", "\u001b[31m", "süß 🙂", "", "\ud800", "a,b=\"c\""];
        var output = new ArrayBufferWriter<byte>();
        using var meters = new ServiceCollection().AddMetrics().BuildServiceProvider();
        var meter = meters.GetRequiredService<IMeterFactory>().Create(CoordinatorMetrics.MeterName);
        using var store = new MetricsStore(meters.GetRequiredService<IMeterFactory>());
        Counter<long> counter = meter.CreateCounter<long>("trainer.test", "{thing}", "With \"quotes\", a \\ and\na line.");
        foreach (string label in hostile)
        {
            counter.Add(1, new KeyValuePair<string, object?>("a.label", label));
        }
        store.Write(output, openMetrics: false);
        string text = Encoding.UTF8.GetString(output.WrittenSpan);

        Assert.Equal((0, ""), await Promtool.RunAsync(s_docs, text, "check", "metrics"));
        Assert.Equal(hostile.Select(label => label == "\ud800" ? "\ufffd" : label), Scrape.Read(text).Samples.Where(sample => sample.Name == "trainer_test_total").Select(sample => sample.Labels["a_label"]));
        Assert.Contains("# HELP trainer_test_total With \"quotes\", a \\\\ and\\na line.\n", text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("trainer.queue.oldest_wait", "s", false, "trainer_queue_oldest_wait_seconds")]
    [InlineData("trainer.jobs.ended", "{job}", true, "trainer_jobs_ended")]
    [InlineData("http.server.request.duration", "s", false, "http_server_request_duration_seconds")]
    [InlineData("wait.seconds", "s", false, "wait_seconds")]
    [InlineData("9.lives", null, false, "_9_lives")]
    [InlineData("heap", "By", false, "heap_bytes")]
    [InlineData("calls_total", null, true, "calls")]
    public void Instruments_are_named_as_Prometheus_names_them(string instrument, string? unit, bool counter, string expected) =>
        Assert.Equal(expected, PrometheusText.NameOf(instrument, unit, counter));

    /// <summary>On which the values of jobs over OTLP rest: a reader of sums would put all but the first 2,000 jobs into one.</summary>
    [Theory]
    [InlineData(MetricReaderTemporalityPreference.Delta, "job-4990", "job-4999")]
    [InlineData(MetricReaderTemporalityPreference.Cumulative, "", "")]
    public void A_reader_of_deltas_forgets_label_sets_that_are_gone(MetricReaderTemporalityPreference temporality, string first, string last)
    {
        using var meter = new Meter($"test-{temporality}");
        int round = 0;
        meter.CreateObservableGauge("loss", () => Enumerable.Range(round * 10, 10).Select(job => new Measurement<double>(job, new KeyValuePair<string, object?>("job_id", $"job-{job}"))));
        using var kept = new LastJobs();
        using var reader = new BaseExportingMetricReader(kept) { TemporalityPreference = temporality };
        using MeterProvider provider = Sdk.CreateMeterProviderBuilder().AddMeter(meter.Name).AddReader(reader).Build();
        for (; round < 500; round++)
        {
            Assert.True(provider.ForceFlush());
        }
        Assert.Equal((first, last), (kept.Jobs[0], kept.Jobs[^1]));
    }

    [Fact]
    public async Task The_rules_are_valid_and_do_what_their_tests_say()
    {
        (int code, string text) = await Promtool.RunAsync(s_docs, "", "check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml");
        Assert.True(code == 0, text);
        (code, text) = await Promtool.RunAsync(s_docs, "", "test", "rules", "alerts-test.yaml");
        Assert.True(code == 0, text);
    }

    /// <summary>Of metrics that only some event makes, the coordinator is asked after it.</summary>
    [Fact]
    public async Task Dashboard_and_rules_name_only_what_a_coordinator_tells()
    {
        JobId job = (await Client.SubmitAsync(new SubmitRequest { Config = _home.Job() })).Id;
        await TestHome.UntilAsync(Client, job, JobStatus.Running, 1);
        await BeatAsync(job, 1, step: 4, checkpoint: 3);
        _home.Do(job, 1, "crash");
        await TestHome.UntilAsync(Client, job, JobStatus.Running, 2);
        await BeatAsync(job, 2, step: 5, checkpoint: 4);
        await TestHome.UntilAsync(Client, job, view => view.Step == 5);
        Scrape scrape = Scrape.Read(await TextAsync());
        var told = scrape.Samples.Select(sample => sample.Name).ToHashSet();

        JsonNode dashboard = JsonNode.Parse(await File.ReadAllTextAsync(Path.Combine(s_docs, "grafana-dashboard.json")))!;
        string[] asked = [.. Strings(dashboard, "expr", "query", "definition")];
        Assert.True(asked.Length > 40);
        asked = [.. asked, .. (await File.ReadAllLinesAsync(Path.Combine(s_docs, "alerts.yaml"))).Where(line => !line.Contains("description:", StringComparison.Ordinal) && !line.Contains("summary:", StringComparison.Ordinal))];
        string[] named = [.. asked.SelectMany(text => MetricName().Matches(text).Select(match => match.Value)).Distinct().Order(StringComparer.Ordinal)];
        Assert.True(named.Length > 35);
        Assert.Empty(named.Except(told));
        // And what we tell of ourselves is used, so that neither is forgotten.
        Assert.DoesNotContain(scrape.Types.Keys, name => name.StartsWith("trainer_", StringComparison.Ordinal) && !named.Any(used => used.StartsWith(name, StringComparison.Ordinal)));
        Panels(dashboard);
    }

    [Fact]
    public void Times_are_those_of_what_happened()
    {
        DateTimeOffset at = new(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);
        JobRecord job = JobClock.Begin(JobLifecycle.Create(new JobSpec { Id = new JobId("demo-abcd"), Name = "demo", Config = "{}" }, at));
        Assert.Equal(new JobTimes { QueuedAt = at }, job.Times);
        job = Happen(new RoomGranted(At(5), ["n1"]));
        Assert.Equal(new JobTimes { QueuedAt = at, AttemptAt = At(5) }, job.Times);
        // A resumed rank says first where it continues, which is no step of this attempt.
        job = Happen(new RankReported(At(6), new RankReport { Attempt = 1, Pid = 1, Step = 7, LastCheckpointStep = 7 }));
        Assert.Equal((null, At(6)), (job.Times.FirstStepAt, job.Times.CheckpointAt));
        job = Happen(new RankReported(At(7), new RankReport { Attempt = 1, Pid = 1, Step = 8, Loss = 2, LastCheckpointStep = 7 }));
        Assert.Equal((At(7), At(6)), (job.Times.FirstStepAt, job.Times.CheckpointAt));
        Assert.Equal(TimeSpan.FromSeconds(3), CoordinatorMetrics.CheckpointAge(job, At(10)));
        job = Happen(new RankReported(At(9), new RankReport { Attempt = 1, Pid = 1, Step = 10, Loss = 2, LastCheckpointStep = 10 }));
        Assert.Equal(TimeSpan.FromSeconds(1), CoordinatorMetrics.CheckpointAge(job, At(10)));
        job = Happen(new RankLost(At(11), 1, FailureClass.Infrastructure, "gone"));
        Assert.Equal(At(11), job.Times.FailedAt);
        Assert.Null(CoordinatorMetrics.CheckpointAge(job, At(12)));
        job = Happen(new RetryDue(At(12)));
        Assert.Equal(At(12), job.Times.QueuedAt);
        job = Happen(new RoomGranted(At(13), ["n1"]));
        Assert.Equal((At(13), null, At(11)), (job.Times.AttemptAt, job.Times.FirstStepAt, job.Times.FailedAt));
        // A second failure without a step: the job recovers from the first.
        job = Happen(new RankLost(At(14), 2, FailureClass.Infrastructure, "gone"));
        Assert.Equal(At(11), job.Times.FailedAt);
        job = Happen(new RetryDue(At(15)));
        job = Happen(new RoomGranted(At(16), ["n1"]));
        job = Happen(new RankReported(At(18), new RankReport { Attempt = 3, Pid = 1, Step = 11, Loss = 2, LastCheckpointStep = 10 }));
        Assert.Equal((At(18), null, At(9)), (job.Times.FirstStepAt, job.Times.FailedAt, job.Times.CheckpointAt));
        Assert.Equal(TimeSpan.FromSeconds(2), CoordinatorMetrics.CheckpointAge(job, At(20)));

        DateTimeOffset At(int seconds) => at.AddSeconds(seconds);

        JobRecord Happen(JobEvent happened) => JobClock.Advance(job, JobLifecycle.Apply(job, happened).Job, happened.At);
    }

    /// <summary>Rank 0 says how far it is, as a rank does.</summary>
    private async Task BeatAsync(JobId job, int attempt, int step, int checkpoint)
    {
        await _home.PidAsync(job, attempt);
        await _agent!.HeartbeatAsync(job, new RankReport
        {
            Attempt = attempt, Pid = 1, Phase = RankPhase.Training, Step = step, Steps = 30, Loss = 2.5, EvalLoss = 2.25, TokensPerSecond = 1000, EtaSeconds = 30,
            LearningRate = 1e-3, GradNorm = 0.75, LastCheckpointStep = checkpoint, Trouble = attempt == 2 ? "the store does not answer" : null,
            Checkpoints = new CheckpointReport
            {
                Revision = checkpoint, Store = "/store", Held = [new HeldCheckpoint { Step = checkpoint, Attempt = 1, CommittedAt = DateTimeOffset.UtcNow, Manifest = "m" }],
            },
        });
        await TestHome.UntilAsync(Client, job, view => view.Step == step && (attempt == 1 || view.Reason is not null));
    }

    /// <summary>Buckets only grow, and the last is the count.</summary>
    private static void Histograms(Scrape scrape)
    {
        foreach (string name in scrape.Types.Where(type => type.Value == "histogram").Select(type => type.Key))
        {
            foreach (var series in scrape.Samples.Where(sample => sample.Name == name + "_bucket")
                .GroupBy(sample => string.Join(',', sample.Labels.Where(label => label.Key != "le").Select(label => $"{label.Key}={label.Value}"))))
            {
                double[] counts = [.. series.Select(sample => sample.Value)];
                Assert.Equal(counts.Order(), counts);
                Assert.Equal("+Inf", series.Last().Labels["le"]);
                Assert.Contains(scrape.Samples, sample => sample.Name == name + "_count" && sample.Value == counts[^1]);
            }
        }
    }

    /// <summary>What Grafana needs of a dashboard: panels with an id and a place, data from the variable, no two at one place.</summary>
    private static void Panels(JsonNode dashboard)
    {
        JsonNode[] panels = [.. dashboard["panels"]!.AsArray().Select(panel => panel!)];
        Assert.Equal(panels.Length, panels.Select(panel => (int)panel["id"]!).Distinct().Count());
        Assert.Equal(["datasource", "pool", "job"], dashboard["templating"]!["list"]!.AsArray().Select(variable => (string)variable!["name"]!));
        Assert.True((int)dashboard["schemaVersion"]! >= 36);
        var taken = new HashSet<(int, int)>();
        foreach (JsonNode panel in panels)
        {
            JsonNode place = panel["gridPos"]!;
            for (int x = (int)place["x"]!; x < (int)place["x"]! + (int)place["w"]!; x++)
            {
                for (int y = (int)place["y"]!; y < (int)place["y"]! + (int)place["h"]!; y++)
                {
                    Assert.True(x < 24 && taken.Add((x, y)), (string)panel["title"]!);
                }
            }
            if ((string)panel["type"]! != "row")
            {
                Assert.Equal("${datasource}", (string)panel["datasource"]!["uid"]!);
                Assert.NotEmpty(panel["targets"]!.AsArray());
            }
        }
    }

    private static IEnumerable<string> Strings(JsonNode? node, params string[] keys) => node switch
    {
        JsonObject map => map.SelectMany(pair => keys.Contains(pair.Key) && pair.Value is JsonValue value ? [(string)value!] : Strings(pair.Value, keys)),
        JsonArray list => list.SelectMany(item => Strings(item, keys)),
        _ => [],
    };

    private async Task<string> TextAsync(string? accept = null)
    {
        using HttpResponseMessage response = await GetAsync(accept);
        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        return await response.Content.ReadAsStringAsync();
    }

    private async Task<HttpResponseMessage> GetAsync(string? accept)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, "http://coordinator/metrics");
        if (accept is not null)
        {
            request.Headers.TryAddWithoutValidation("Accept", accept);
        }
        return await _http!.SendAsync(request);
    }

    private async Task<Stream> ConnectAsync(CancellationToken cancellationToken)
    {
        var socket = new System.Net.Sockets.Socket(System.Net.Sockets.AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, System.Net.Sockets.ProtocolType.Unspecified);
        await socket.ConnectAsync(new System.Net.Sockets.UnixDomainSocketEndPoint(_home.Home.Socket), cancellationToken);
        return new System.Net.Sockets.NetworkStream(socket, ownsSocket: true);
    }

    /// <summary>The jobs of the newest collection; what has overflowed is "".</summary>
    private sealed class LastJobs : BaseExporter<Metric>
    {
        public List<string> Jobs { get; } = [];

        public override ExportResult Export(in Batch<Metric> batch)
        {
            Jobs.Clear();
            foreach (Metric metric in batch)
            {
                foreach (ref readonly MetricPoint point in metric.GetMetricPoints())
                {
                    string job = "";
                    foreach ((string key, object? value) in point.Tags)
                    {
                        job = key == "job_id" ? (string)value! : job;
                    }
                    Jobs.Add(job);
                }
            }
            Jobs.Sort(StringComparer.Ordinal);
            return ExportResult.Success;
        }
    }

    [GeneratedRegex(@"\b(?!http_(route|re))(trainer|http|dotnet|orleans)_[a-z0-9_]+\b")]
    private static partial Regex MetricName();
}
