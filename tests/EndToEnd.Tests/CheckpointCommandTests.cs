using System.Text.Json;
using Trainer.Contracts;

namespace Trainer.EndToEnd.Tests;

/// <summary>What a person does with the checkpoints of a job.</summary>
public sealed class CheckpointCommandTests
{
    [Fact]
    public async Task Checkpoints_are_listed_verified_and_downloaded_and_a_damaged_one_is_told_everywhere()
    {
        using var place = new Workplace();
        JobView job = await place.SubmitAsync("--set", "training.steps=16", "--set", "evaluation.every=5");
        job = await place.FinishAsync(job.Id);
        Assert.Equal((JobStatus.Succeeded, 16), (job.Status, job.LastCheckpointStep));
        string events = await place.DoAsync("events", "tiny", "--follow");
        Assert.Contains("succeeded: at step 16", events, StringComparison.Ordinal);
        string store = new JobFiles(job.Directory).Checkpoints;

        // Two are kept, and the best besides.
        CheckpointList list = await ListAsync(place);
        Assert.Equal((1, store), (list.SchemaVersion, list.Store));
        CheckpointEntry[] held = [.. list.Checkpoints.Where(entry => entry.Status is CheckpointStatus.Committed)];
        Assert.Equal(Directory.GetDirectories(store, "step-*").Select(folder => Path.GetFileName(folder)["step-".Length..]).Order(), held.Select(entry => $"{entry.Step:D8}"));
        Assert.Equal([15, 16], held[^2..].Select(entry => entry.Step));
        Assert.Equal([5, 10, 15, 16], list.Checkpoints.Select(entry => entry.Step));
        Assert.Single(held, entry => entry.Best);
        Assert.All(held, entry => Assert.Equal(Directory.GetFiles(Path.Combine(store, $"step-{entry.Step:D8}", "attempt-1")).Sum(file => new FileInfo(file).Length), entry.Bytes));
        Assert.Matches(@"(?m)^16 +1 +[0-9.]+ [KM]iB +[0-9a-z]+ .*committed", await place.DoAsync("checkpoints", "list", "tiny"));

        Assert.Equal(held.Length, (await place.DoAsync("checkpoints", "verify", "tiny")).Split('\n').Count(line => line.EndsWith(": good", StringComparison.Ordinal)));
        Assert.All((await ListAsync(place)).Checkpoints.Where(entry => entry.Status is CheckpointStatus.Committed), entry => Assert.NotNull(entry.VerifiedAt));

        string shard = Path.Combine(store, "step-00000016", "attempt-1", "rank-0.safetensors");
        byte[] bytes = File.ReadAllBytes(shard);
        bytes[bytes.Length / 2] ^= 4;
        File.WriteAllBytes(shard, bytes);
        Outcome damaged = await place.RunAsync("checkpoints", "download", "tiny", "16", "--out", "copy");
        Assert.True(damaged.ExitCode == 1, damaged.Everything);
        Assert.Contains("step-00000016/attempt-1/rank-0.safetensors has other content", damaged.Error, StringComparison.Ordinal);
        Assert.DoesNotContain(Directory.GetFileSystemEntries(place.Folder), path => Path.GetFileName(path).StartsWith("copy", StringComparison.Ordinal));

        Outcome passedOver = await place.RunAsync("checkpoints", "download", "tiny", "--out", "newest-good");
        Assert.True(passedOver.ExitCode == 0 && passedOver.Output.Contains("step 15 written to", StringComparison.Ordinal), passedOver.Everything);
        Assert.Contains("warning: ", passedOver.Error, StringComparison.Ordinal);
        Assert.Contains("step 16 is damaged: step-00000016/attempt-1/rank-0.safetensors has other content", passedOver.Error, StringComparison.Ordinal);

        Outcome verified = await place.RunAsync("checkpoints", "verify", "tiny");
        Assert.True(verified.ExitCode == 1, verified.Everything);
        Assert.Contains("step 15: good", verified.Output, StringComparison.Ordinal);
        Assert.Contains("rank-0.safetensors has other content", verified.Output, StringComparison.Ordinal);
        CheckpointEntry bad = (await ListAsync(place)).Checkpoints.Single(entry => entry.Step == 16);
        Assert.Equal(CheckpointStatus.Quarantined, bad.Status);
        Assert.Contains("rank-0.safetensors has other content", bad.Reason, StringComparison.Ordinal);
        Assert.Contains("quarantined: ", await place.DoAsync("checkpoints", "list", "tiny"), StringComparison.Ordinal);
        Assert.Equal(0, (await place.RunAsync("checkpoints", "verify", "tiny", "15")).ExitCode);
        Assert.Equal(1, (await place.RunAsync("checkpoints", "verify", "tiny", "16")).ExitCode);
        Outcome none = await place.RunAsync("checkpoints", "verify", "tiny", "7");
        Assert.True(none.ExitCode == 2 && none.Error.Contains("there are steps 16, 15", StringComparison.Ordinal), none.Everything);

        Assert.Contains("step 15 written to", await place.DoAsync("checkpoints", "download", "tiny", "--out", "copy"), StringComparison.Ordinal);
        string[] copied = [.. Directory.GetFiles(place.PathOf("copy"), "*", SearchOption.AllDirectories).Select(path => Path.GetRelativePath(place.PathOf("copy"), path)).Order(StringComparer.Ordinal)];
        Assert.Equal(["step-00000015/attempt-1/history.jsonl", "step-00000015/attempt-1/rank-0.safetensors", "step-00000015/manifest.json"], copied);
        Assert.All(copied, file => Assert.Equal(File.ReadAllBytes(Path.Combine(store, file)), File.ReadAllBytes(place.PathOf($"copy/{file}"))));
        Outcome twice = await place.RunAsync("checkpoints", "download", "tiny", "15", "--out", "copy");
        Assert.True(twice.ExitCode == 2 && twice.Error.Contains("not empty", StringComparison.Ordinal), twice.Everything);
        Assert.Equal(3, (await place.RunAsync("checkpoints", "list", "nobody")).ExitCode);

        // A committed one that is gone is told, and attempts say what they go on from.
        Directory.Move(Path.Combine(store, "step-00000015"), place.PathOf("step-00000015"));
        Outcome gone = await place.RunAsync("checkpoints", "verify", "tiny");
        Assert.True(gone.ExitCode == 1 && gone.Output.Contains("step 15 is missing", StringComparison.Ordinal), gone.Everything);
        Directory.Move(place.PathOf("step-00000015"), Path.Combine(store, "step-00000015"));

        // The copy is a store: another job of the same training goes on from it.
        JobView more = await place.SubmitAsync("--name", "more", "--set", "training.steps=16", "--set", "evaluation.every=5", "--set", $"checkpoint.resume_from={place.PathOf("copy")}");
        more = await place.FinishAsync(more.Id);
        Assert.True(more.Status is JobStatus.Succeeded, more.Reason);
        Assert.Contains("continuing from the checkpoint of step 15", await File.ReadAllTextAsync(new JobFiles(more.Directory).Attempt(1).Stdout), StringComparison.Ordinal);
    }

    private static async Task<CheckpointList> ListAsync(Workplace place) =>
        JsonSerializer.Deserialize(await place.DoAsync("checkpoints", "list", "tiny", "--all", "-o", "json"), ContractsJson.Default.CheckpointList)!;
}
