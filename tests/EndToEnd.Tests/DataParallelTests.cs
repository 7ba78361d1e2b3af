using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text.Json;
using System.Text.RegularExpressions;
using TorchSharp;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Tests.Distributed;
using Trainer.Worker.Training;
using Xunit.Abstractions;

namespace Trainer.EndToEnd.Tests;

/// <summary>Several <c>trainer rank</c> processes train one job together.</summary>
public sealed partial class DataParallelTests(ITestOutputHelper output)
{
    /// <summary>Time enough for orders to arrive.</summary>
    private static readonly string[] s_long = ["training.steps=400", "evaluation.every=200", "samples.every=200", "checkpoint.every=1000"];

    private static readonly Lazy<Task<TrainingTrace>> s_undisturbed = new(TrainAsync);

    [GlooFact]
    public async Task The_same_job_gives_the_same_bits_each_time() => (await TrainAsync()).AssertEqual(await s_undisturbed.Value);

    [GlooTheory]
    [InlineData(2, 1)]
    [InlineData(3, 1)]
    [InlineData(2, 2)]
    public async Task Ranks_make_the_update_of_one_rank_with_as_many_micro_batches(int worldSize, int accumulation)
    {
        using var place = new Workplace();
        JobFiles together = await FinishAsync(place, worldSize, accumulation);
        using var other = new Workplace();
        JobFiles alone = await FinishAsync(other, 1, worldSize * accumulation);

        Dictionary<string, float[]> initial = Initial(alone);
        double difference = Distance(Weights(together), Weights(alone)), update = Distance(Weights(alone), initial);
        output.WriteLine($"{worldSize} ranks: |difference| {difference:E2} of |update| {update:E2}: {difference / update:E2}");
        Assert.True(update > 1);
        Assert.True(difference <= 1e-4 * update, $"{difference} of {update}");
    }

    [GlooFact]
    public async Task Every_rank_ends_with_the_same_weights_and_reports_what_it_does()
    {
        using var place = new Workplace();
        JobFiles job = RankGroup.CreateJob(place);
        await using RankGroup group = await RankGroup.StartAsync(place, job, 1, 2);
        string[] logs = await group.SucceedAsync();

        string[] sums = [.. logs.Select(log => Checksum().Matches(log)[^1].Value)];
        Assert.StartsWith($"step {TinyJob.Steps}: the 2 ranks hold the same weights", sums[0], StringComparison.Ordinal);
        Assert.Equal(sums[0], sums[1]);
        Assert.All([0, 1], rank =>
        {
            Assert.Equal((RankOutcome.Succeeded, TinyJob.Steps), (group.Result(rank)!.Outcome, group.Result(rank)!.Step));
            RankReport[] reports = [.. group.Agent.Reports[rank]];
            Assert.Equal(reports.Select(report => report.Ticks).Order(), reports.Select(report => report.Ticks));
            Assert.Equal(0, reports[0].Ticks);
            Assert.True(reports[^1].Ticks > 0);
            Assert.Contains(reports, report => report.Activity == "rendezvous");
            Assert.Contains(reports, report => report.Activity?.StartsWith("step ", StringComparison.Ordinal) == true);
        });
        Assert.Contains(group.Agent.Reports[0], report => report.Endpoint?.StartsWith("127.0.0.1:", StringComparison.Ordinal) == true);
        Assert.All(group.Agent.Reports[1], report => Assert.Null(report.Endpoint));
    }

    [GlooTheory]
    [InlineData(0)]
    [InlineData(1)]
    public async Task When_a_rank_is_killed_the_other_ends_within_5_s_and_the_next_attempt_ends_bitwise_equal(int victim)
    {
        using var place = new Workplace();
        JobFiles job = RankGroup.CreateJob(place);
        await using (RankGroup group = await RankGroup.StartAsync(
            place, job, 1, 2, new Dictionary<string, string> { ["TRAINER_TEST_KILL"] = $"Step@13@1@{victim}" }))
        {
            await group.WaitAsync(victim);
            long killed = Stopwatch.GetTimestamp();
            Outcome outcome = await group.WaitAsync(1 - victim);
            TimeSpan took = Stopwatch.GetElapsedTime(killed);

            output.WriteLine($"rank {1 - victim} ended {took.TotalSeconds:F2} s after rank {victim}: {group.Result(1 - victim)?.Message}");
            Assert.True(took < TimeSpan.FromSeconds(5), $"{took}");
            Assert.Equal(1, outcome.ExitCode);
            Assert.Null(group.Result(victim));
            RankResult result = group.Result(1 - victim)!;
            Assert.Equal((RankOutcome.Failed, FailureClass.Infrastructure), (result.Outcome, result.FailureClass));
            Assert.StartsWith($"rank {1 - victim} of 2: gloo.all_reduce: ", result.Message, StringComparison.Ordinal);
            Assert.Contains("all-reduce of ", result.Message, StringComparison.Ordinal);
        }

        await using RankGroup next = await RankGroup.StartAsync(place, job, 2, 2);
        Assert.Contains("continuing from the checkpoint of step 10", (await next.SucceedAsync())[0], StringComparison.Ordinal);
        (await TrainingTrace.ReadAsync(job)).AssertEqual(await s_undisturbed.Value);
    }

    [GlooFact]
    public async Task The_death_of_a_rank_reaches_those_that_are_not_its_neighbours()
    {
        using var place = new Workplace();
        JobFiles job = RankGroup.CreateJob(place);
        await using RankGroup group = await RankGroup.StartAsync(
            place, job, 1, 4, new Dictionary<string, string> { ["TRAINER_TEST_KILL"] = "Step@3@1@2" });
        await group.WaitAsync(2);
        long killed = Stopwatch.GetTimestamp();
        await Task.WhenAll(group.WaitAsync(0), group.WaitAsync(1), group.WaitAsync(3));
        TimeSpan took = Stopwatch.GetElapsedTime(killed);

        output.WriteLine($"all ended {took.TotalSeconds:F2} s after rank 2");
        Assert.True(took < TimeSpan.FromSeconds(5), $"{took}");
        Assert.All([0, 1, 3], rank => Assert.Equal(
            (RankOutcome.Failed, FailureClass.Infrastructure), (group.Result(rank)!.Outcome, group.Result(rank)!.FailureClass)));
    }

    [GlooFact]
    public async Task A_stop_order_to_one_rank_stops_all_at_one_step_and_another_world_size_goes_on_from_there()
    {
        using var place = new Workplace();
        JobFiles job = RankGroup.CreateJob(place, s_long);
        CheckpointManifest stopped;
        await using (RankGroup group = await RankGroup.StartAsync(place, job, 1, 2))
        {
            await group.StepAsync(1, 5);
            group.Agent.Orders[1] = RankOrder.Stop;
            await group.SucceedAsync();

            stopped = Assert.Single(await CheckpointsAsync(job));
            Assert.InRange(stopped.Step, 5, 399);
            Assert.All([0, 1], rank => Assert.Equal((RankOutcome.Cancelled, (int)stopped.Step), (group.Result(rank)!.Outcome, group.Result(rank)!.Step)));
        }

        await using RankGroup other = await RankGroup.StartAsync(place, job, 2, 3);
        await other.StepAsync(0, (int)stopped.Step + 5);
        LinuxProcesses.Signal(other.Pid(2), LinuxProcesses.Terminate);
        string[] logs = await other.SucceedAsync();
        Assert.All(logs, log => Assert.Contains($"continuing from the checkpoint of step {stopped.Step}", log, StringComparison.Ordinal));
        CheckpointManifest went = (await CheckpointsAsync(job))[0];
        Assert.All([0, 1, 2], rank => Assert.Equal((RankOutcome.Interrupted, (int)went.Step), (other.Result(rank)!.Outcome, other.Result(rank)!.Step)));
        // A step has a micro-batch a rank.
        double before = (double)stopped.Cursor / stopped.Step, after = (double)(went.Cursor - stopped.Cursor) / (went.Step - stopped.Step);
        Assert.Equal(1.5, after / before, 0.2);
    }

    [GlooFact]
    public async Task Epochs_are_counted_in_samples_whatever_the_world_size()
    {
        using var place = new Workplace();
        const int Epochs = 4;
        place.Edit(TinyJob.File, $"  steps: {TinyJob.Steps}\n", "");
        JobFiles job = RankGroup.CreateJob(place, $"training.epochs={Epochs}", "training.batch_tokens=128");
        await using (RankGroup first = await RankGroup.StartAsync(place, job, 1, 2))
        {
            await first.StepAsync(0, 5);
            first.Agent.Orders[0] = RankOrder.Stop;
            await first.SucceedAsync();
        }

        await using RankGroup second = await RankGroup.StartAsync(place, job, 2, 1);
        await second.SucceedAsync();
        CheckpointManifest end = (await CheckpointsAsync(job))[0];
        Assert.Equal((RankOutcome.Succeeded, (int)end.Step), (second.Result(0)!.Outcome, second.Result(0)!.Step));
        using JsonDocument certificate = JsonDocument.Parse(File.ReadAllText(Assert.Single(Directory.GetFiles(job.Data, "train-*.json"))));
        long samples = Epochs * certificate.RootElement.GetProperty("kept").GetInt64();
        Assert.InRange(end.Cursor, samples, samples + (end.Cursor / end.Step));
    }

    private static async Task<TrainingTrace> TrainAsync()
    {
        using var place = new Workplace();
        return await TrainingTrace.ReadAsync(await FinishAsync(place, 2, 1));
    }

    private static async Task<JobFiles> FinishAsync(Workplace place, int worldSize, int accumulation)
    {
        JobFiles job = RankGroup.CreateJob(place, $"training.gradient_accumulation={accumulation}");
        await using RankGroup group = await RankGroup.StartAsync(place, job, 1, worldSize);
        await group.SucceedAsync();
        return job;
    }

    /// <summary>Newest first.</summary>
    private static async Task<CheckpointManifest[]> CheckpointsAsync(JobFiles job) =>
        [.. (await new CheckpointReader(CheckpointStore.Open(job.Checkpoints), TimeProvider.System).VerifyAsync(CancellationToken.None))
            .Where(finding => finding.State == CheckpointState.Good).Select(finding => finding.Manifest!)];

    private static Dictionary<string, float[]> Initial(JobFiles job)
    {
        using JobModel model = JobModel.Load(JobConfigJson.Load(job.Config), _ => { });
        using DisposeScope scope = torch.NewDisposeScope();
        return model.Model.NamedTensors().ToDictionary(tensor => tensor.Name, tensor => tensor.Slice(tensor.Parameter).detach().contiguous().data<float>().ToArray());
    }

    private static Dictionary<string, float[]> Weights(JobFiles job)
    {
        var weights = new Dictionary<string, float[]>();
        using SnapshotWeights snapshot = SnapshotWeights.Open(job.Model);
        foreach (string name in snapshot.Names)
        {
            using NativeBuffer bytes = NativeBuffer.Allocate(snapshot.Entry(name).Length);
            snapshot.Read(name, bytes.Pointer, bytes.Length);
            weights[name] = MemoryMarshal.Cast<byte, float>(bytes.AsMemory(0, (int)bytes.Length).Span).ToArray();
        }

        return weights;
    }

    private static double Distance(Dictionary<string, float[]> one, Dictionary<string, float[]> other) => Math.Sqrt(one.Sum(
        tensor => tensor.Value.Zip(other[tensor.Key], (a, b) => ((double)a - b) * ((double)a - b)).Sum()));

    [GeneratedRegex("step [0-9]+: the [0-9]+ ranks hold the same weights and moments .*")]
    private static partial Regex Checksum();
}
