using System.Diagnostics;
using Trainer.Contracts;
using Trainer.Worker.Reports;
using Trainer.Worker.Tests.Reports;

namespace Trainer.EndToEnd.Tests;

/// <summary>A real job of a real coordinator, as a collector hears of it.</summary>
public sealed class TelemetryTests
{
    private const string Trace = "0af7651916cd43dd8448eb211c80319c", Submitter = "b7ad6b7169203331";

    /// <summary>
    /// A rank is killed, then the coordinator: the trace begins below the submitter's span and goes on as one, and each thing is told
    /// once.
    /// </summary>
    [Fact]
    public async Task A_trace_follows_a_job_from_its_submission_to_its_end_whoever_is_killed()
    {
        await using OtlpReceiver receiver = await OtlpReceiver.StartAsync();
        using var place = new Workplace();
        place.Environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.Address.ToString();
        place.Environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf";
        place.Environment["OTEL_EXPORTER_OTLP_HEADERS"] = "x-key=secret-key";
        place.Environment["OTEL_RESOURCE_ATTRIBUTES"] = "deployment.environment.name=test";
        place.Environment["OTEL_BSP_SCHEDULE_DELAY"] = "200";
        place.Environment["OTEL_METRIC_EXPORT_INTERVAL"] = "500";
        place.Environment["TRACEPARENT"] = $"00-{Trace}-{Submitter}-01";
        place.Edit(TinyJob.File, $"steps: {TinyJob.Steps}", "steps: 200");

        JobView job = await place.SubmitAsync();
        JobFiles files = place.Files.Job(job.Id);
        await Workplace.UntilAsync(() => receiver.Spans.Any(span => span.Name == "checkpoint"), "a checkpoint");
        LinuxProcesses.Signal(Workplace.Ranks(files).Single(), LinuxProcesses.Kill);
        await Workplace.UntilAsync(() => receiver.Spans.Any(span => span.Name == "recovery"), "the recovery");
        await Workplace.UntilAsync(() => receiver.Points.Any(point => point is { Name: "trainer.recoveries", Value: 1 }), "the recovery as a metric");
        await Workplace.UntilAsync(() => receiver.Points.Any(point => point.Name == "trainer.job.learning_rate" && point.Value > 0), "the metrics of a step");
        Process.GetProcessById(place.CoordinatorPid()).Kill();
        job = await place.FinishAsync(job.Id);
        Assert.Equal((JobStatus.Succeeded, 2), (job.Status, job.Attempt));
        await place.DoAsync("stop");
        await Workplace.UntilAsync(() => receiver.Spans.Any(span => span.Name == "job"), "the end");

        ReceivedSpan[] spans = [.. receiver.Spans];
        Assert.All(spans, span => Assert.Equal(Trace, span.Trace));
        ReceivedSpan submit = Assert.Single(spans, span => span.Name == "submit");
        Assert.Equal(Submitter, submit.Parent);
        Assert.All(spans.Where(span => span != submit), span => Assert.Equal(submit.Id, span.Parent));
        Assert.Equal(spans.Length, spans.Select(span => span.Id).Distinct().Count());
        Assert.All(spans, span => Assert.Equal((job.Id.Value, "tiny", "default"),
            (span.Attributes["trainer.job.id"], span.Attributes["trainer.job.name"], span.Attributes["trainer.project"])));
        Assert.All(spans, span => Assert.True(span.Start <= span.End, span.Name));
        foreach (string twice in new[] { "queue", "start", "attempt" })
        {
            Assert.Equal(["1", "2"], spans.Where(span => span.Name == twice).OrderBy(span => span.Start).Select(span => span.Attributes["trainer.attempt"]));
        }
        ReceivedSpan whole = Assert.Single(spans, span => span.Name == "job"), recovery = Assert.Single(spans, span => span.Name == "recovery");
        ReceivedSpan[] attempts = [.. spans.Where(span => span.Name == "attempt").OrderBy(span => span.Start)], starts = [.. spans.Where(span => span.Name == "start").OrderBy(span => span.Start)];
        Assert.Equal((2, "infrastructure"), (attempts[0].Status, attempts[0].Attributes["error.type"]));
        Assert.Equal((0, "succeeded"), (attempts[1].Status, attempts[1].Attributes["trainer.attempt.ending"]));
        Assert.Equal((attempts[0].End, starts[1].End), (recovery.Start, recovery.End));
        Assert.Equal((attempts[0].Start, attempts[1].Start), (starts[0].Start, starts[1].Start));
        Assert.Equal(("succeeded", "200"), (whole.Attributes["trainer.job.status"], whole.Attributes["trainer.step"]));
        Assert.Equal(attempts[1].End, whole.End);
        Assert.InRange(whole.Start, submit.Start.AddSeconds(-0.01), submit.End.AddSeconds(0.01));
        ReceivedSpan[] checkpoints = [.. spans.Where(span => span.Name == "checkpoint").OrderBy(span => span.End)];
        Assert.True(checkpoints.Length >= 3);
        Assert.Equal("200", checkpoints[^1].Attributes["trainer.step"]);
        Assert.Equal(checkpoints.Length, checkpoints.Select(span => span.Attributes["trainer.step"]).Distinct().Count());
        Assert.All(checkpoints, span => Assert.Contains(attempts, attempt => attempt.Start <= span.Start && span.End <= attempt.End));

        Assert.Equal(["secret-key"], receiver.Keys.Keys);
        Assert.Equal(("trainer", "test"), (receiver.Resource["service.name"], receiver.Resource["deployment.environment.name"]));
        ReceivedPoint[] points = [.. receiver.Points];
        Assert.Contains(points, point => point is { Name: "trainer.recoveries", Value: 1 });
        Assert.Contains(points, point => point is { Name: "trainer.queue.wait", Unit: "s", Value: >= 1 });
        Assert.Contains(points, point => point.Name == "trainer.jobs" && point.Value == 1 && point.Attributes["status"] == "running");
        Assert.Contains(points, point => point.Name == "trainer.job.loss" && point.Attributes["job_id"] == job.Id.Value && point.Value > 0);
        Assert.Contains(points, point => point.Name == "http.server.request.duration");
        // TensorBoard shows each step once, whichever attempt wrote it.
        MetricsRecord[] metrics = [.. StepLog.ReadMetrics(files.Metrics)];
        List<(string Tag, long Step, float Value)> scalars = EventFile.Scalars(files.TensorBoard);
        Assert.Equal(2, Directory.GetFiles(files.TensorBoard).Length);
        Assert.Equal(Enumerable.Range(1, 200).Select(step => (long)step), metrics.Select(record => record.Step));
        Assert.Equal(metrics.Select(record => (record.Step, (float)record.Loss)), Curve("train/loss"));
        Assert.Equal(metrics.Select(record => (record.Step, (float)record.LearningRate)), Curve("train/learning_rate"));
        Assert.Equal(metrics.Select(record => (record.Step, (float)record.GradNorm)), Curve("train/grad_norm"));
        Assert.Equal(metrics.Where(record => record.EvalLoss is not null).Select(record => (record.Step, (float)record.EvalLoss!)), Curve("eval/loss"));
        Assert.Equal(200, Curve("train/tokens_per_second").Count());

        string log = await File.ReadAllTextAsync(place.Files.Log);
        Assert.Contains($"OTLP: traces go to {receiver.Address.GetLeftPart(UriPartial.Authority)}", log, StringComparison.Ordinal);
        Assert.DoesNotContain("secret-key", log, StringComparison.Ordinal);

        IEnumerable<(long Step, float Value)> Curve(string tag) => scalars.Where(scalar => scalar.Tag == tag).Select(scalar => (scalar.Step, scalar.Value));
    }

    [Fact]
    public async Task Nothing_is_sent_unless_asked_and_a_wrong_address_is_told()
    {
        await using OtlpReceiver receiver = await OtlpReceiver.StartAsync();
        using var place = new Workplace();
        place.Environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf";
        place.Environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = receiver.Address + "v1/traces";
        place.Environment["OTEL_BSP_SCHEDULE_DELAY"] = "100";
        place.Environment["OTEL_METRIC_EXPORT_INTERVAL"] = "100";
        JobView job = await place.SubmitAsync("--paused");
        await Workplace.UntilAsync(() => !receiver.Spans.IsEmpty, "the submission");
        await Task.Delay(500);
        Assert.Empty(receiver.Points);
        ReceivedSpan submit = Assert.Single(receiver.Spans);
        Assert.Equal(("submit", "", job.Id.Value), (submit.Name, submit.Parent, submit.Attributes["trainer.job.id"]));
        await place.DoAsync("stop");

        place.Environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = "collector";
        Outcome wrong = await place.RunAsync("serve", "--no-worker");
        Assert.Equal(2, wrong.ExitCode);
        Assert.Contains("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is not an address", wrong.Error, StringComparison.Ordinal);
    }
}
