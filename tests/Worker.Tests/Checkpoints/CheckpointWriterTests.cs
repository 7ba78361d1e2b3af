using Trainer.Worker.Checkpoints;

namespace Trainer.Worker.Tests.Checkpoints;

[Collection(Azurite.Collection)]
public sealed class CheckpointWriterTests(Azurite azurite) : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    private DirectoryStore Store => field ??= new DirectoryStore(_directory.Path);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_checkpoint_reads_back_from_either_store(bool blob)
    {
        ICheckpointStore store = blob
            ? new BlobAddress($"test-{Guid.NewGuid():N}", "job").Open(
                name => name == "AZURE_STORAGE_CONNECTION_STRING" ? azurite.ConnectionString : null, new BlobStoreOptions { BlockBytes = 64 })
            : Store;
        await using (CheckpointWriter writer = Checkpointing.Writer(store, attempt: 2))
        {
            await writer.SaveAsync(120, 1.5);
        }

        Assert.Equal(
            ["step-00000120/attempt-2/history.jsonl", "step-00000120/attempt-2/rank-0.safetensors", "step-00000120/manifest.json"],
            (await store.ListAsync("", default)).Select(file => file.Path));
        (CheckpointManifest? manifest, List<CheckpointFinding> findings) = await Checkpointing.FindNewestAsync(store);
        Assert.Empty(findings);
        Assert.Equal((120, 2, 1, 42L, 1.5), (manifest!.Step, manifest.Attempt, manifest.WorldSize, manifest.Seed, manifest.EvaluationLoss));
        Assert.Equal("2.11", manifest.Libraries["libtorch"]);
        Assert.Equal(1e-5, manifest.Config.GetProperty("optimizer").GetProperty("learning_rate").GetDouble());
        await Checkpointing.RequireContentAsync(store, manifest);
    }

    [Fact]
    public async Task Saving_runs_behind_and_a_second_save_waits_for_the_first()
    {
        TaskCompletionSource go = new();
        await using CheckpointWriter writer = Checkpointing.Writer(Store, phase: phase => phase == CheckpointPhase.BeforeManifest ? new ValueTask(go.Task) : default);
        await writer.BeginSaveAsync(Checkpointing.Snapshot(1), default);
        Assert.True(writer.IsSaving);
        Task second = writer.BeginSaveAsync(Checkpointing.Snapshot(2), default);
        await Task.Delay(50);
        Assert.False(second.IsCompleted);
        writer.ThrowIfFailed();

        go.SetResult();
        await second;
        await writer.CompleteAsync();
        Assert.False(writer.IsSaving);
        Assert.Equal(2, (await Checkpointing.FindNewestAsync(Store)).Manifest!.Step);
    }

    [Fact]
    public async Task A_failed_save_fails_every_later_call_and_all_buffers_are_released()
    {
        int released = 0;
        CheckpointSnapshot Counted(long step) => new()
        {
            Step = step,
            Cursor = 0,
            Tensors = [new(new TensorSpec("x", TensorDType.U8, [0]), NativeBuffer.Borrow(0, 0, () => Interlocked.Increment(ref released)))],
        };
        await using CheckpointWriter writer = Checkpointing.Writer(Store, phase: Fail(CheckpointPhase.AfterShards));
        await writer.BeginSaveAsync(Counted(1), default);
        await Assert.ThrowsAsync<Killed>(writer.CompleteAsync);
        Assert.Throws<Killed>(writer.ThrowIfFailed);
        await Assert.ThrowsAsync<Killed>(() => writer.BeginSaveAsync(Counted(2), default));
        await Assert.ThrowsAsync<Killed>(writer.CompleteAsync);
        Assert.Equal(2, released);
        Assert.Null((await Checkpointing.FindNewestAsync(Store)).Manifest);
    }

    [Fact]
    public async Task Disposing_abandons_a_save()
    {
        CheckpointWriter writer = Checkpointing.Writer(Store, phase: phase => phase == CheckpointPhase.MidShard ? new ValueTask(Task.Delay(50)) : default);
        await writer.BeginSaveAsync(Checkpointing.Snapshot(1), default);
        await writer.DisposeAsync();
        Assert.Null((await Checkpointing.FindNewestAsync(Store)).Manifest);
    }

    // Steps 10 and 20 are committed; attempt 1 dies at a phase of step 30; attempt 2 continues from what it finds.
    [Theory]
    [InlineData(CheckpointPhase.BeforeShard, 20)]
    [InlineData(CheckpointPhase.MidShard, 20)]
    [InlineData(CheckpointPhase.AfterShards, 20)]
    [InlineData(CheckpointPhase.BeforeManifest, 20)]
    [InlineData(CheckpointPhase.AfterManifest, 30)]
    [InlineData(CheckpointPhase.Retention, 30)]
    public async Task After_a_crash_at_any_phase_the_next_attempt_continues(CheckpointPhase phase, long expected)
    {
        await using (CheckpointWriter writer = Checkpointing.Writer(Store, attempt: 1, keep: 2))
        {
            await writer.SaveAsync(10);
            await writer.SaveAsync(20);
        }

        await using (CheckpointWriter dying = Checkpointing.Writer(Store, attempt: 1, keep: 2, Fail(phase)))
        {
            await Assert.ThrowsAsync<Killed>(() => dying.SaveAsync(30));
        }

        (CheckpointManifest? found, List<CheckpointFinding> findings) = await Checkpointing.FindNewestAsync(Store);
        Assert.Equal(expected, found!.Step);
        await Checkpointing.RequireContentAsync(Store, found);
        bool leftover = phase is CheckpointPhase.AfterShards or CheckpointPhase.BeforeManifest;
        Assert.Equal(leftover ? [(30, CheckpointState.Incomplete)] : [], findings.Select(f => (f.Step, f.State)));

        await using (CheckpointWriter next = Checkpointing.Writer(Store, attempt: 2, keep: 2))
        {
            await next.SaveAsync(30);
            await next.SaveAsync(40);
        }

        (found, findings) = await Checkpointing.FindNewestAsync(Store);
        Assert.Equal(40, found!.Step);
        Assert.Empty(findings);
        int attemptOf30 = expected == 30 ? 1 : 2;
        Assert.Equal(
            [
                $"step-00000030/attempt-{attemptOf30}/history.jsonl", $"step-00000030/attempt-{attemptOf30}/rank-0.safetensors", "step-00000030/manifest.json",
                "step-00000040/attempt-2/history.jsonl", "step-00000040/attempt-2/rank-0.safetensors", "step-00000040/manifest.json",
            ],
            (await Store.ListAsync("", default)).Select(file => file.Path));
    }

    [Fact]
    public async Task A_replaced_attempt_cannot_commit()
    {
        await using CheckpointWriter zombie = Checkpointing.Writer(Store, attempt: 1);
        await using CheckpointWriter current = Checkpointing.Writer(Store, attempt: 2);
        await current.SaveAsync(10);
        AttemptReplacedException error = await Assert.ThrowsAsync<AttemptReplacedException>(() => zombie.SaveAsync(20));
        Assert.Contains("attempt 1: attempt 2 writes to the store", error.Message, StringComparison.Ordinal);
        Assert.Equal(10, (await Checkpointing.FindNewestAsync(Store)).Manifest!.Step);
    }

    [Fact]
    public async Task An_attempt_that_is_replaced_while_it_commits_loses()
    {
        await using CheckpointWriter current = Checkpointing.Writer(Store, attempt: 2);
        await using CheckpointWriter zombie = Checkpointing.Writer(Store, attempt: 1, phase: phase =>
            phase == CheckpointPhase.BeforeManifest ? new ValueTask(current.SaveAsync(10)) : default);
        await Assert.ThrowsAsync<AttemptReplacedException>(() => zombie.SaveAsync(10));

        CheckpointManifest manifest = (await Checkpointing.FindNewestAsync(Store)).Manifest!;
        Assert.Equal(2, manifest.Attempt);
        await Checkpointing.RequireContentAsync(Store, manifest);
    }

    [Fact]
    public async Task An_older_attempt_that_commits_the_step_first_does_not_stop_the_current_one()
    {
        TaskCompletionSource zombieMayCommit = new(), zombieIsReady = new();
        await using CheckpointWriter zombie = Checkpointing.Writer(Store, attempt: 1, phase: async phase =>
        {
            if (phase == CheckpointPhase.BeforeManifest)
            {
                zombieIsReady.SetResult();
                await zombieMayCommit.Task;
            }
        });
        await zombie.BeginSaveAsync(Checkpointing.Snapshot(10), default);
        await zombieIsReady.Task;
        List<int> committed = [];
        await using CheckpointWriter current = new(Store, Checkpointing.Author(2), new CheckpointWriterOptions
        {
            Committed = manifest => committed.Add(manifest.Attempt),
            Phase = async phase =>
            {
                if (phase == CheckpointPhase.BeforeManifest && zombieMayCommit.TrySetResult())
                {
                    await zombie.CompleteAsync();
                }
            },
        });
        await current.SaveAsync(10);
        await current.SaveAsync(20);

        Assert.Equal([1, 2], committed);
        CheckpointReader reader = new(Store, TimeProvider.System);
        Assert.Equal([(20L, 2), (10L, 1)], (await reader.VerifyAsync(default)).Select(f => (f.Step, f.Manifest!.Attempt)));
    }

    [Fact]
    public async Task A_step_that_an_earlier_attempt_committed_is_not_touched()
    {
        await using CheckpointWriter first = Checkpointing.Writer(Store, attempt: 1);
        await first.SaveAsync(10);
        byte[] manifest = File.ReadAllBytes(_directory.File("step-00000010/manifest.json"));
        await using CheckpointWriter second = Checkpointing.Writer(Store, attempt: 2);
        await second.SaveAsync(10);
        Assert.Equal(manifest, File.ReadAllBytes(_directory.File("step-00000010/manifest.json")));
        Assert.Equal(3, (await Store.ListAsync("", default)).Count);
    }

    [Fact]
    public async Task The_newest_and_the_best_are_kept()
    {
        await using CheckpointWriter writer = Checkpointing.Writer(Store, keep: 2);
        (long Step, double? Loss)[] saves = [(10, 3.0), (20, 1.0), (30, double.NaN), (40, 2.0), (50, null), (60, 1.5)];
        foreach ((long step, double? loss) in saves)
        {
            await writer.SaveAsync(step, loss);
        }

        IReadOnlyList<CheckpointFinding> kept = await new CheckpointReader(Store, TimeProvider.System).VerifyAsync(default);
        Assert.Equal([(60L, false), (50L, false), (20L, true)], kept.Select(f => (f.Step, f.Best)));
        Assert.All(kept, finding => Assert.Equal(CheckpointState.Good, finding.State));
        Assert.Equal(9, (await Store.ListAsync("", default)).Count);
    }

    [Fact]
    public async Task A_manifest_never_names_a_file_that_retention_removed()
    {
        await using CheckpointWriter writer = Checkpointing.Writer(Store, keep: 1, phase: async phase =>
        {
            if (phase == CheckpointPhase.Retention)
            {
                Assert.Equal(["step-00000020/manifest.json"], (await Store.ListAsync("", default)).Select(f => f.Path).Where(p => p.EndsWith("manifest.json", StringComparison.Ordinal)));
                Assert.Equal(5, (await Store.ListAsync("", default)).Count);
            }
        });
        await writer.SaveAsync(10);
        await writer.SaveAsync(20);
        Assert.Equal(3, (await Store.ListAsync("", default)).Count);
    }

    [Fact]
    public async Task Checkpoints_and_leftovers_around_another_job_stay()
    {
        await using CheckpointWriter other = Checkpointing.Writer(Store, fingerprint: "other", job: "other");
        await other.SaveAsync(5);
        await Store.TryCreateAsync("step-00000007/attempt-1/rank-0.safetensors", new byte[] { 1 }, default);
        await using CheckpointWriter writer = Checkpointing.Writer(Store, attempt: 2, keep: 1);
        await writer.SaveAsync(10);
        await writer.SaveAsync(20);
        Assert.Equal(
            ["step-00000005", "step-00000005", "step-00000005", "step-00000007", "step-00000020", "step-00000020", "step-00000020"],
            (await Store.ListAsync("", default)).Select(f => f.Path.Split('/')[0]));
    }

    [Fact]
    public async Task Ranks_write_a_shard_each_and_rank_0_commits_when_all_have()
    {
        const int WorldSize = 3;
        List<CheckpointFile> gathered = [];
        TaskCompletionSource all = new();
        async Task<IReadOnlyList<CheckpointFile>> GatherAsync(long step, IReadOnlyList<CheckpointFile> files, CancellationToken token)
        {
            lock (gathered)
            {
                gathered.AddRange(files);
                if (gathered.Count(file => file.Kind == CheckpointFileKind.Shard) == WorldSize)
                {
                    all.SetResult();
                }
            }

            await all.Task.WaitAsync(token);
            return gathered;
        }

        CheckpointWriter[] writers = [.. Enumerable.Range(0, WorldSize).Select(rank => new CheckpointWriter(
            Store, Checkpointing.Author(1) with { Rank = rank, WorldSize = WorldSize }, new CheckpointWriterOptions { Gather = GatherAsync }))];
        foreach (CheckpointWriter writer in writers)
        {
            CheckpointSnapshot snapshot = Checkpointing.Snapshot(10);
            await writer.BeginSaveAsync(
                writer == writers[0] ? snapshot : new CheckpointSnapshot { Step = 10, Cursor = 100, Tensors = snapshot.Tensors }, default);
        }

        foreach (CheckpointWriter writer in writers)
        {
            await writer.CompleteAsync();
            await writer.DisposeAsync();
        }

        CheckpointManifest manifest = (await Checkpointing.FindNewestAsync(Store)).Manifest!;
        Assert.Equal(3, manifest.WorldSize);
        Assert.Equal([0, 1, 2], Enumerable.Range(0, 3).Where(rank => manifest.Shard(rank).Length > 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => manifest.Shard(3));
    }

    public void Dispose() => _directory.Dispose();

    private static Func<CheckpointPhase, ValueTask> Fail(CheckpointPhase at) => phase => phase == at ? throw new Killed() : default;

    private sealed class Killed : Exception;
}
