using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Tests;
using Xunit.Abstractions;

namespace Trainer.EndToEnd.Tests;

/// <summary>kill -9 of the rank, of the coordinator, of both: a followed job ends as if nothing had happened, bit for bit.</summary>
public sealed class KillTests(ITestOutputHelper output, Azurite azurite) : IClassFixture<Azurite>
{
    public static TheoryData<KillMoment> Moments => [.. KillMoment.Chosen];

    [Theory]
    [MemberData(nameof(Moments), DisableDiscoveryEnumeration = true)]
    public async Task A_killed_job_ends_bitwise_equal_to_an_undisturbed_one(KillMoment moment)
    {
        using var place = new Workplace();
        (JobView job, TrainingTrace trace) = await KillAsync(place, moment, Undisturbed.Full);
        trace.AssertEqual((await Undisturbed.OfAsync(Undisturbed.Full)).Trace);
        output.WriteLine($"{moment}: {job.Attempt} attempts, bitwise equal ({KillMoment.Chosen.Count} moments in this run)");
    }

    [Theory]
    [InlineData(Victim.Rank, null, 13)]
    [InlineData(Victim.Both, "MidShard", 20)]
    [InlineData(Victim.Rank, "Merge", 30)]
    public async Task A_killed_LoRA_training_with_dropout_and_recompute_ends_bitwise_equal(Victim victim, string? phase, int step)
    {
        using var place = new Workplace();
        (_, TrainingTrace trace) = await KillAsync(place, new KillMoment(0, victim, phase, step, 0), Undisturbed.Lora);
        trace.AssertEqual((await Undisturbed.OfAsync(Undisturbed.Lora)).Trace);
    }

    [Theory]
    [InlineData("MidShard", 15)]
    [InlineData("BeforeManifest", 20)]
    public async Task A_training_killed_while_it_saves_to_Azure_ends_bitwise_equal_to_one_that_saves_to_disk(string phase, int step)
    {
        using var place = new Workplace();
        place.Environment["AZURE_STORAGE_CONNECTION_STRING"] = azurite.ConnectionString;
        string address = $"azblob://kills/{phase.ToLowerInvariant()}";
        ICheckpointStore store = BlobAddress.Parse(address).Open(name => place.Environment.GetValueOrDefault(name), new BlobStoreOptions());
        (_, TrainingTrace trace) = await KillAsync(
            place, new KillMoment(0, Victim.Rank, phase, step, 0), [.. Undisturbed.Accumulated, "--set", $"checkpoint.store={address}"], store);
        trace.AssertEqual((await Undisturbed.OfAsync(Undisturbed.Accumulated)).Trace);
    }

    [Fact]
    public async Task A_trace_holds_every_weight_and_moment_and_the_exported_model()
    {
        string[] names = [.. (await Undisturbed.OfAsync(Undisturbed.Full)).Trace.Names];
        Assert.Equal(TinyJob.Steps, names.Count(name => name.StartsWith("metrics line", StringComparison.Ordinal)));
        int weights = names.Count(name => name.StartsWith("tensor ", StringComparison.Ordinal)) / 3;
        // Embedding and last norm; per layer four projections, two norms of heads, three of the MLP and two norms.
        Assert.Equal(2 + (2 * 11), weights);
        Assert.Contains("export model.safetensors", names);
    }

    /// <summary>Submits and follows, kills, and sees the job through to its end.</summary>
    private static async Task<(JobView Job, TrainingTrace Trace)> KillAsync(Workplace place, KillMoment moment, string[] options, ICheckpointStore? store = null)
    {
        if (moment.Phase is not null)
        {
            place.Environment["TRAINER_TEST_KILL"] = $"{moment.Phase}@{moment.Step}@1";
        }
        using TrainerProgram follower = place.Start(["submit", TinyJob.File, "--follow", .. options]);
        JobFiles files = await place.OnlyJobAsync();
        if (moment.Phase is null)
        {
            await Workplace.StepAsync(files, moment.Step);
            await Task.Delay(moment.Delay);
        }
        else
        {
            await Workplace.UntilAsync(() => follower.HasExited || IsKilled(files, place), $"the rank to kill itself at {moment}");
        }
        if (moment.Victim is not Victim.Rank)
        {
            LinuxProcesses.Signal(place.CoordinatorPid(), LinuxProcesses.Kill);
        }
        if (moment.Victim is not Victim.Coordinator && moment.Phase is null)
        {
            foreach (int rank in Workplace.Ranks(files))
            {
                LinuxProcesses.Signal(rank, LinuxProcesses.Kill);
            }
        }
        Outcome outcome = await follower.WaitAsync();
        Assert.True(outcome.ExitCode == 0, outcome.Everything);

        JobView job = await place.StatusAsync("tiny");
        Assert.Equal((JobStatus.Succeeded, TinyJob.Steps), (job.Status, job.Step));
        // A rank that had its result written when it was killed from outside needs no second attempt; a coordinator's death never costs one.
        int least = moment.Victim is Victim.Coordinator || moment.Phase is null ? 1 : 2;
        int most = moment.Victim is Victim.Coordinator ? 1 : 2;
        Assert.InRange(job.Attempt, least, most);
        for (int attempt = 1; attempt <= job.Attempt; attempt++)
        {
            Assert.True(File.Exists(files.Attempt(attempt).Stdout));
            Assert.Contains(job.History, entry => entry.Text == $"attempt {attempt} starts on local");
        }
        await place.DoAsync("stop");
        Assert.Empty(place.Processes().Select(LinuxProcesses.CommandLine));
        return (job, await TrainingTrace.ReadAsync(files, store));
    }

    private static bool IsKilled(JobFiles files, Workplace place) =>
        File.Exists(files.Attempt(1).Stdout) && new FileInfo(files.Attempt(1).Stdout).Length > 0
        && !Workplace.Ranks(files).Any(pid => LinuxProcesses.Variable(pid, "TRAINER_ATTEMPT") == "1");
}
