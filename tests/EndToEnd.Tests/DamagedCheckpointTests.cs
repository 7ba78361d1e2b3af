using Trainer.Contracts;

namespace Trainer.EndToEnd.Tests;

/// <summary>A damaged newest checkpoint is named and passed over; the job ends as if it had been good.</summary>
public sealed class DamagedCheckpointTests
{
    public enum Damage { FlippedByteInShard, TruncatedShard, MissingShard, FlippedByteInManifest, HalfUploadedNewerStep }

    [Theory]
    [InlineData(Damage.FlippedByteInShard, "rank-0.safetensors has other content than was written")]
    [InlineData(Damage.TruncatedShard, "rank-0.safetensors has")]
    [InlineData(Damage.MissingShard, "rank-0.safetensors is missing")]
    [InlineData(Damage.FlippedByteInManifest, "manifest.json: the manifest is damaged")]
    [InlineData(Damage.HalfUploadedNewerStep, "was uploaded in part and never committed")]
    public async Task A_resumed_job_goes_on_from_the_newest_good_checkpoint(Damage damage, string reported)
    {
        using var place = new Workplace();
        JobView job = await place.SubmitAsync(Undisturbed.Long);
        var files = new JobFiles(job.Directory);
        await Workplace.StepAsync(files, (2 * TinyJob.CheckpointEvery) + 2);
        await place.DoAsync("cancel", job.Id.Value);
        job = await place.FinishAsync(job.Id);
        Assert.Equal(JobStatus.Cancelled, job.Status);

        string[] steps = [.. Directory.EnumerateDirectories(files.Checkpoints, "step-*").Order(StringComparer.Ordinal)];
        string bad = Apply(damage, steps[^1]);
        Dictionary<string, byte[]> before = Content(bad);
        await place.DoAsync("resume", job.Id.Value);
        job = await place.FinishAsync(job.Id);

        Assert.Equal((JobStatus.Succeeded, 2), (job.Status, job.Attempt));
        string log = await File.ReadAllTextAsync(files.Attempt(2).Stdout);
        Assert.Contains($"warning: {files.Checkpoints}: step {Number(bad)} ", log, StringComparison.Ordinal);
        Assert.Contains(reported, log, StringComparison.Ordinal);
        string good = damage is Damage.HalfUploadedNewerStep ? steps[^1] : steps[^2];
        Assert.Contains($"continuing from the checkpoint of step {Number(good)},", log, StringComparison.Ordinal);
        if (damage is not Damage.HalfUploadedNewerStep)
        {
            Dictionary<string, byte[]> after = Content(bad);
            Assert.Contains(after.Keys, path => Path.GetFileName(path) == "quarantined.json");
            Assert.All(before, file => Assert.Equal(file.Value, after[file.Key]));
        }
        (await TrainingTrace.ReadAsync(files)).AssertEqual((await Undisturbed.OfAsync(Undisturbed.Long)).Trace);
    }

    [Fact]
    public async Task When_all_checkpoints_are_damaged_the_job_says_so_and_starts_again()
    {
        using var place = new Workplace();
        JobView job = await place.SubmitAsync(Undisturbed.Long);
        var files = new JobFiles(job.Directory);
        await Workplace.StepAsync(files, (2 * TinyJob.CheckpointEvery) + 2);
        await place.DoAsync("pause", job.Id.Value);
        while ((await place.StatusAsync(job.Id.Value)).Status is not JobStatus.Paused)
        {
        }
        int[] steps = [.. Directory.EnumerateDirectories(files.Checkpoints, "step-*").Select(Number).Order()];
        foreach (string step in Directory.EnumerateDirectories(files.Checkpoints, "step-*"))
        {
            Apply(Damage.TruncatedShard, step);
        }

        await place.DoAsync("resume", job.Id.Value);
        JobView running;
        do
        {
            running = await place.StatusAsync(job.Id.Value);
        }
        while (running.Reason?.StartsWith("no use of damaged checkpoints: ", StringComparison.Ordinal) != true && !running.Status.IsTerminal());
        Assert.Equal(JobStatus.Running, running.Status);
        job = await place.FinishAsync(job.Id);

        Assert.Equal((JobStatus.Succeeded, 2), (job.Status, job.Attempt));
        string events = await place.DoAsync("events", job.Id.Value);
        string told = events.Split('\n').Single(line => line.Contains("no use of damaged checkpoints: ", StringComparison.Ordinal));
        Assert.All(steps, step => Assert.Contains($"step {step} (step-{step:D8}/attempt-1/rank-0.safetensors has ", told, StringComparison.Ordinal));
        Assert.EndsWith("; goes on from step 0", told, StringComparison.Ordinal);
        string listed = await place.DoAsync("checkpoints", "list", job.Id.Value);
        Assert.Contains("quarantined: step-", listed, StringComparison.Ordinal);
        Assert.Contains("a job goes on from the newest good one", listed, StringComparison.Ordinal);
    }

    /// <returns>The folder of the bad step.</returns>
    private static string Apply(Damage damage, string newest)
    {
        string shard = Directory.EnumerateFiles(newest, "rank-0.safetensors", SearchOption.AllDirectories).Single();
        switch (damage)
        {
            case Damage.FlippedByteInShard:
                Flip(shard);
                break;
            case Damage.TruncatedShard:
                using (FileStream file = File.OpenWrite(shard))
                {
                    file.SetLength(file.Length / 2);
                }
                break;
            case Damage.MissingShard:
                File.Delete(shard);
                break;
            case Damage.FlippedByteInManifest:
                Flip(Path.Combine(newest, "manifest.json"));
                break;
            default:
                string newer = Path.Combine(Path.GetDirectoryName(newest)!, $"step-{Number(newest) + 1:D8}");
                string half = Path.Combine(newer, "attempt-1", "rank-0.safetensors");
                Directory.CreateDirectory(Path.GetDirectoryName(half)!);
                File.WriteAllBytes(half, File.ReadAllBytes(shard)[..1000]);
                return newer;
        }
        return newest;
    }

    private static void Flip(string path)
    {
        byte[] bytes = File.ReadAllBytes(path);
        bytes[bytes.Length * 2 / 3] ^= 1;
        File.WriteAllBytes(path, bytes);
    }

    private static int Number(string folder) => int.Parse(Path.GetFileName(folder)["step-".Length..], System.Globalization.CultureInfo.InvariantCulture);

    private static Dictionary<string, byte[]> Content(string folder) =>
        Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).ToDictionary(path => path, File.ReadAllBytes);
}
