using Trainer.Contracts;
using Trainer.Worker.Checkpoints;

namespace Trainer.Worker.Tests.Checkpoints;

public sealed class CheckpointInventoryTests : IDisposable
{
    private static readonly DateTimeOffset s_now = new(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);

    private readonly TemporaryDirectory _directory = new();

    private DirectoryStore Store => field ??= new DirectoryStore(_directory.Path);

    [Fact]
    public async Task What_is_told_while_saving_is_what_a_fresh_look_finds()
    {
        CheckpointInventory inventory = await ReadAsync();
        Assert.Empty(inventory.Report.Held);
        await SaveAsync(inventory, 1, keep: 2, (10, 3.0), (20, 1.0), (30, double.NaN), (40, 2.0), (50, null));

        HeldCheckpoint[] held = [.. inventory.Report.Held.Where(held => !held.Removed)];
        Assert.Equal([50, 40, 20], held.Select(held => held.Step));
        Assert.Equal((await ReadAsync()).Report.Held.AsEnumerable(), held);
        Assert.Equal([null, 2.0, 1.0], held.Select(held => held.EvalLoss));
        Assert.Equal([10, 30], inventory.Report.Held.Where(held => held.Removed).Select(held => held.Step));
        HeldCheckpoint newest = held[0];
        Assert.Equal(Directory.GetFiles(_directory.File("step-00000050/attempt-1")).Sum(file => new FileInfo(file).Length), newest.Bytes);
        Assert.Contains($"\"checksum\": \"{newest.Manifest}\"", File.ReadAllText(_directory.File("step-00000050/manifest.json")), StringComparison.Ordinal);
        Assert.Equal(Store.Address, inventory.Report.Store);
    }

    [Fact]
    public async Task Each_change_has_a_revision_and_a_repeated_commit_has_none()
    {
        CheckpointInventory inventory = await ReadAsync();
        await SaveAsync(inventory, 1, keep: 9, (10, null));
        int revision = inventory.Report.Revision;
        await SaveAsync(inventory, 2, keep: 9, (10, null));
        Assert.Equal(revision, inventory.Report.Revision);
        await SaveAsync(inventory, 2, keep: 1, (20, null));
        Assert.Equal((revision + 2, 20), (inventory.Report.Revision, Assert.Single(inventory.Report.Held, held => !held.Removed).Step));
    }

    [Fact]
    public async Task Damaged_ones_are_told_with_their_reason_and_the_verified_one_with_its_time()
    {
        await SaveAsync(await ReadAsync(), 3, keep: 9, (10, null), (20, null), (30, null));
        File.Delete(_directory.File("step-00000030/attempt-3/rank-0.safetensors"));
        string manifest = _directory.File("step-00000020/manifest.json");
        File.WriteAllText(manifest, "{" + File.ReadAllText(manifest));
        CheckpointManifest? good = (await Checkpointing.FindNewestAsync(Store)).Manifest;

        HeldCheckpoint[] held = [.. (await ReadAsync(good)).Report.Held];

        Assert.Equal([(30, 3), (20, 3), (10, 3)], held.Select(h => (h.Step, h.Attempt)));
        Assert.Contains("rank-0.safetensors is missing", held[0].Quarantined, StringComparison.Ordinal);
        Assert.Contains("the manifest is damaged", held[1].Quarantined, StringComparison.Ordinal);
        Assert.Equal((null, null, s_now), (held[2].Quarantined, held[1].Bytes, held[2].VerifiedAt));
    }

    [Fact]
    public async Task Of_very_many_the_newest_and_the_best_are_named()
    {
        CheckpointInventory inventory = await ReadAsync();
        await SaveAsync(inventory, 1, keep: 100, [.. Enumerable.Range(1, 50).Select(step => ((long)step, step == 7 ? 0.5 : (double?)step))]);

        CheckpointReport report = inventory.Report;
        Assert.Equal([.. Enumerable.Range(19, 32).Reverse(), 7], report.Held.Select(held => held.Step));
        Assert.Equal((19, 1), (report.From, report.Oldest));
    }

    [Fact]
    public async Task Checkpoints_of_another_training_in_the_store_are_not_told()
    {
        await using (CheckpointWriter other = Checkpointing.Writer(Store, fingerprint: "other", job: "other"))
        {
            await other.SaveAsync(5);
        }

        CheckpointInventory inventory = await ReadAsync();
        await SaveAsync(inventory, 2, keep: 9, (10, null));
        Assert.Equal(10, Assert.Single(inventory.Report.Held).Step);
        Assert.Equal(10, Assert.Single((await ReadAsync()).Report.Held).Step);
    }

    [Fact]
    public async Task Judging_a_damaged_step_quarantines_it_and_leaves_the_others()
    {
        await SaveAsync(await ReadAsync(), 1, keep: 9, (10, null), (20, null));
        File.WriteAllText(_directory.File("step-00000020/attempt-1/history.jsonl"), "{\"step\":21}\n");
        var reader = new CheckpointReader(Store, TimeProvider.System);

        Assert.Equal([20, 10], await reader.StepsAsync(default));
        CheckpointFinding? bad = await reader.JudgeAsync(20, default);
        Assert.Equal((CheckpointState.Quarantined, 1), (bad!.State, bad.Manifest!.Attempt));
        Assert.Contains("history.jsonl has other content", bad.Message, StringComparison.Ordinal);
        Assert.True(File.Exists(_directory.File("step-00000020/quarantined.json")));
        Assert.Equal(CheckpointState.Quarantined, (await reader.JudgeAsync(20, default))!.State);
        Assert.Equal(CheckpointState.Good, (await reader.JudgeAsync(10, default))!.State);
        Assert.Null(await reader.JudgeAsync(15, default));
    }

    [Fact]
    public async Task A_copy_is_a_store_with_the_checkpoint_and_is_there_whole_or_not_at_all()
    {
        await SaveAsync(await ReadAsync(), 1, keep: 9, (10, null), (20, null), (30, null));
        File.WriteAllText(_directory.File("step-00000020/attempt-1/history.jsonl"), "{\"step\":21}\n");
        string copies = Directory.CreateTempSubdirectory("copies").FullName;
        string target = Path.Combine(copies, "copy");

        Assert.Equal(30, (await CheckpointCopy.WriteAsync(Store, null, target, default)).Step);
        foreach (StoredFile file in await Store.ListAsync("step-00000030/", default))
        {
            Assert.Equal(File.ReadAllBytes(_directory.File(file.Path)), File.ReadAllBytes(Path.Combine(target, file.Path)));
        }
        var copy = new DirectoryStore(target);
        await Checkpointing.RequireContentAsync(copy, (await Checkpointing.FindNewestAsync(copy)).Manifest!);

        InvalidDataException damaged = await Assert.ThrowsAsync<InvalidDataException>(() => CheckpointCopy.WriteAsync(Store, 20, Path.Combine(copies, "bad"), default));
        Assert.Contains("step 20 is damaged: step-00000020/attempt-1/history.jsonl", damaged.Message, StringComparison.Ordinal);
        File.Delete(_directory.File("step-00000010/attempt-1/rank-0.safetensors"));
        damaged = await Assert.ThrowsAsync<InvalidDataException>(() => CheckpointCopy.WriteAsync(Store, 10, Path.Combine(copies, "bad"), default));
        Assert.Contains("rank-0.safetensors is missing", damaged.Message, StringComparison.Ordinal);
        await Assert.ThrowsAsync<JobInputException>(() => CheckpointCopy.WriteAsync(Store, null, target, default));
        JobInputException none = await Assert.ThrowsAsync<JobInputException>(() => CheckpointCopy.WriteAsync(Store, 40, Path.Combine(copies, "bad"), default));
        Assert.Contains("there are steps 30, 20, 10", none.Message, StringComparison.Ordinal);

        await new CheckpointReader(Store, TimeProvider.System).JudgeAsync(20, default);
        damaged = await Assert.ThrowsAsync<InvalidDataException>(() => CheckpointCopy.WriteAsync(Store, 20, Path.Combine(copies, "bad"), default));
        Assert.Contains("is quarantined, because it is damaged: step-00000020/attempt-1/history.jsonl has other content", damaged.Message, StringComparison.Ordinal);
        none = await Assert.ThrowsAsync<JobInputException>(() => CheckpointCopy.WriteAsync(Store, 40, Path.Combine(copies, "bad"), default));
        Assert.Contains("there are steps 30, 20 (quarantined), 10", none.Message, StringComparison.Ordinal);
        Assert.StartsWith("step-00000020/attempt-1/history.jsonl has other content", (await ReadAsync()).Report.Held.Single(held => held.Step == 20).Quarantined, StringComparison.Ordinal);
        Assert.Equal([target], Directory.GetFileSystemEntries(copies));

        File.WriteAllText(_directory.File("step-00000030/attempt-1/history.jsonl"), "{\"step\":31}\n");
        var passedOver = new List<string>();
        none = await Assert.ThrowsAsync<JobInputException>(() => CheckpointCopy.WriteAsync(Store, null, Path.Combine(copies, "bad"), default, passedOver.Add));
        Assert.Contains("no good checkpoint; there are steps 30, 20 (quarantined), 10", none.Message, StringComparison.Ordinal);
        Assert.Equal(["step 30 is damaged", "step 10 is damaged"], passedOver.Select(problem => problem.Split(": ")[1]));
        Directory.Delete(copies, recursive: true);
    }

    public void Dispose() => _directory.Dispose();

    private Task<CheckpointInventory> ReadAsync(CheckpointManifest? verified = null) =>
        CheckpointInventory.ReadAsync(Store, Checkpointing.Fingerprint, verified, s_now, default);

    private async Task SaveAsync(CheckpointInventory inventory, int attempt, int keep, params (long Step, double? Loss)[] saves)
    {
        await using var writer = new CheckpointWriter(Store, Checkpointing.Author(attempt), new CheckpointWriterOptions { Keep = keep, Committed = inventory.Add, Removed = inventory.Remove });
        foreach ((long step, double? loss) in saves)
        {
            await writer.SaveAsync(step, loss);
        }
    }
}
