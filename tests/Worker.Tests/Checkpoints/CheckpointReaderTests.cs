using System.Text;
using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;

namespace Trainer.Worker.Tests.Checkpoints;

/// <summary>Three committed checkpoints, steps 10, 20 and 30; then something happens to the newest.</summary>
public sealed class CheckpointReaderTests : IAsyncLifetime, IDisposable
{
    private const string Shard = "step-00000030/attempt-1/rank-0.safetensors";
    private const string History = "step-00000030/attempt-1/history.jsonl";
    private const string Manifest = "step-00000030/manifest.json";
    private const string Marker = "step-00000030/quarantined.json";
    private readonly TemporaryDirectory _directory = new();

    private DirectoryStore Store => field ??= new DirectoryStore(_directory.Path);

    public async Task InitializeAsync()
    {
        await using CheckpointWriter writer = Checkpointing.Writer(Store);
        await writer.SaveAsync(10, 2.0);
        await writer.SaveAsync(20, 1.0);
        await writer.SaveAsync(30, 3.0);
    }

    public Task DisposeAsync() => Task.CompletedTask;

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData(Shard)]
    [InlineData(History)]
    [InlineData(Manifest)]
    public async Task Any_flipped_byte_is_found_named_and_passed_over(string path)
    {
        string file = _directory.File(path);
        byte[] good = File.ReadAllBytes(file);
        Random random = new(7);
        // Every byte of a small file, a sample of a large one.
        foreach (int position in Enumerable.Range(0, good.Length).Where(_ => good.Length < 50 || random.Next(good.Length) < 120))
        {
            byte[] damaged = [.. good];
            damaged[position] ^= (byte)(1 << random.Next(8));
            File.WriteAllBytes(file, damaged);
            await RequireQuarantinedAsync(path, $"byte {position}");
            File.WriteAllBytes(file, good);
            File.Delete(_directory.File(Marker));
        }

        Assert.Equal(30, (await Checkpointing.FindNewestAsync(Store)).Manifest!.Step);
    }

    [Theory]
    [InlineData(30, 30L)]
    [InlineData(29, 20L)]
    [InlineData(20, 20L)]
    [InlineData(-1, null)]
    public async Task Steps_that_are_newer_than_asked_for_are_not_looked_at(long newest, long? expected)
    {
        var reader = new CheckpointReader(Store, TimeProvider.System);
        Assert.Equal(expected, (await reader.FindNewestAsync("demo", Checkpointing.Fingerprint, default, newest))?.Step);
    }

    [Theory]
    [InlineData(Shard)]
    [InlineData(History)]
    [InlineData(Manifest)]
    public async Task Any_truncation_is_found_named_and_passed_over(string path)
    {
        string file = _directory.File(path);
        byte[] good = File.ReadAllBytes(file);
        foreach (int length in Enumerable.Range(0, 24).Select(i => i * good.Length / 24).Append(good.Length - 1))
        {
            File.WriteAllBytes(file, good[..length]);
            await RequireQuarantinedAsync(path, $"{length} bytes");
            File.Delete(_directory.File(Marker));
        }

        File.WriteAllBytes(file, [.. good, 0]);
        await RequireQuarantinedAsync(path, "a byte more");
    }

    [Theory]
    [InlineData(Shard)]
    [InlineData(History)]
    public async Task A_missing_file_is_found_named_and_passed_over(string path)
    {
        File.Delete(_directory.File(path));
        await RequireQuarantinedAsync(path, "missing");
    }

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("null")]
    [InlineData("[]")]
    [InlineData("{\"step\": 30}")]
    [InlineData("\0\0\0\0")]
    public async Task A_manifest_that_is_none_is_found_named_and_passed_over(string content)
    {
        File.WriteAllText(_directory.File(Manifest), content);
        await RequireQuarantinedAsync(Manifest, content);
    }

    [Fact]
    public async Task The_manifest_of_another_step_is_found()
    {
        File.Copy(_directory.File("step-00000020/manifest.json"), _directory.File(Manifest), overwrite: true);
        await RequireQuarantinedAsync(Manifest, "of step 20");
    }

    [Fact]
    public async Task Without_its_manifest_a_checkpoint_counts_as_never_committed()
    {
        File.Delete(_directory.File(Manifest));
        (CheckpointManifest? manifest, List<CheckpointFinding> findings) = await Checkpointing.FindNewestAsync(Store);
        Assert.Equal(20, manifest!.Step);
        CheckpointFinding finding = Assert.Single(findings);
        Assert.Equal((30, CheckpointState.Incomplete), (finding.Step, finding.State));
        Assert.Contains(Shard, finding.Message, StringComparison.Ordinal);
        Assert.False(File.Exists(_directory.File(Marker)));
    }

    [Fact]
    public async Task A_half_uploaded_newer_step_is_reported_and_ignored()
    {
        await Store.TryCreateAsync("step-00000040/attempt-1/rank-0.safetensors", new byte[] { 1, 2 }, default);
        (CheckpointManifest? manifest, List<CheckpointFinding> findings) = await Checkpointing.FindNewestAsync(Store);
        Assert.Equal(30, manifest!.Step);
        Assert.Contains("step-00000040/attempt-1/rank-0.safetensors", Assert.Single(findings).Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task When_all_are_damaged_each_is_reported_and_none_is_taken()
    {
        foreach (string file in Directory.GetFiles(_directory.Path, "rank-0.safetensors", SearchOption.AllDirectories))
        {
            File.WriteAllText(file, "gone");
        }

        (CheckpointManifest? manifest, List<CheckpointFinding> findings) = await Checkpointing.FindNewestAsync(Store);
        Assert.Null(manifest);
        Assert.Equal([30, 20, 10], findings.Select(f => f.Step));
        Assert.Equal(3, Directory.GetFiles(_directory.Path, "quarantined.json", SearchOption.AllDirectories).Length);
    }

    [Fact]
    public async Task A_quarantined_checkpoint_stays_reported_untouched_and_its_step_can_be_saved_again()
    {
        Flip(Shard);
        byte[] evidence = File.ReadAllBytes(_directory.File(Shard));
        await RequireQuarantinedAsync(Shard, "first look");
        await RequireQuarantinedAsync(Shard, "second look");

        await using (CheckpointWriter writer = Checkpointing.Writer(Store, attempt: 2, keep: 1))
        {
            await writer.SaveAsync(30);
            (CheckpointManifest? again, List<CheckpointFinding> findings) = await Checkpointing.FindNewestAsync(Store);
            Assert.Equal((30, 2), (again!.Step, again.Attempt));
            Assert.Empty(findings);
            await Checkpointing.RequireContentAsync(Store, again);
            await writer.SaveAsync(40);
        }

        Assert.Equal(evidence, File.ReadAllBytes(_directory.File(Shard)));
        Assert.True(File.Exists(_directory.File(Manifest)));
        Assert.True(File.Exists(_directory.File(Marker)));
        Assert.Equal(40, (await Checkpointing.FindNewestAsync(Store)).Manifest!.Step);
    }

    [Fact]
    public async Task A_quarantined_checkpoint_is_told_with_its_damage_and_the_cure_which_works()
    {
        byte[] whole = File.ReadAllBytes(_directory.File(Shard));
        Flip(Shard);
        var reader = new CheckpointReader(Store, TimeProvider.System);
        CheckpointFinding first = (await reader.JudgeAsync(30, default))!, second = (await reader.JudgeAsync(30, default))!;

        Assert.Equal(first.Message, second.Message);
        Assert.Equal(first.Damage, second.Damage);
        Assert.Matches($"^{Shard} has other content than was written \\(SHA-256 [0-9a-f]{{12}}\\.\\.\\. instead of [0-9a-f]{{12}}\\.\\.\\.\\)$", first.Damage!);
        Assert.Equal($"{_directory.Path}: step 30 is quarantined, because it is damaged: {first.Damage}; it is not used; "
            + $"to use it again, put the file back from a copy, remove {Marker} and run \"trainer checkpoints verify JOB\"", first.Message);

        File.WriteAllBytes(_directory.File(Shard), whole);
        File.Delete(_directory.File(Marker));
        Assert.Equal(CheckpointState.Good, (await reader.JudgeAsync(30, default))!.State);
    }

    [Fact]
    public async Task A_marker_of_an_earlier_build_is_told_without_the_place_where_the_store_was()
    {
        await Store.TryCreateAsync(Marker, Encoding.UTF8.GetBytes($$"""{"step": 30, "reason": "/mnt/old: step 30 is damaged: {{Shard}} is missing", "time": "2026-01-01T00:00:00+00:00"}"""), default);
        Assert.Equal($"{Shard} is missing", (await new CheckpointReader(Store, TimeProvider.System).JudgeAsync(30, default))!.Damage);
    }

    [Fact]
    public async Task The_second_generation_of_a_step_can_be_damaged_too()
    {
        Flip(Shard);
        await Checkpointing.FindNewestAsync(Store);
        await using CheckpointWriter second = Checkpointing.Writer(Store, attempt: 2);
        await second.SaveAsync(30);
        Flip("step-00000030/attempt-2/rank-0.safetensors");
        Assert.Equal(20, (await Checkpointing.FindNewestAsync(Store)).Manifest!.Step);
        await using CheckpointWriter third = Checkpointing.Writer(Store, attempt: 3);
        await third.SaveAsync(30);

        Assert.Equal(3, (await Checkpointing.FindNewestAsync(Store)).Manifest!.Attempt);
        Assert.Equal(
            ["manifest-2.json", "manifest-3.json", "manifest.json", "quarantined-2.json", "quarantined.json"],
            Directory.GetFiles(_directory.File("step-00000030")).Select(Path.GetFileName).Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task A_checkpoint_of_another_job_is_an_error_that_names_both_and_the_cure()
    {
        JobInputException error = await Assert.ThrowsAsync<JobInputException>(
            () => new CheckpointReader(Store, TimeProvider.System).FindNewestAsync("mine", "77aa", default));
        Assert.Contains("job 'demo', which 'mine' can't go on with: its data, model or settings are others (fingerprint 4f1c, now 77aa)", error.Message, StringComparison.Ordinal);
        Assert.Contains("checkpoint.store", error.Message, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles(_directory.Path, "quarantined*", SearchOption.AllDirectories));
        Assert.Equal(30, (await new CheckpointReader(Store, TimeProvider.System).FindNewestAsync("a copy", Checkpointing.Fingerprint, default))!.Step);
    }

    [Fact]
    public async Task What_differs_is_said_by_whoever_asks()
    {
        JobInputException error = await Assert.ThrowsAsync<JobInputException>(() => new CheckpointReader(Store, TimeProvider.System)
            .FindNewestAsync("mine", "77aa", default, differences: manifest => [$"the moon was full at step {manifest.Step}", "the tide is another than then"]));
        Assert.Contains("can't go on with: the moon was full at step 30, the tide is another than then (fingerprint", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_newer_format_is_not_quarantined()
    {
        CheckpointManifest manifest = (await Checkpointing.FindNewestAsync(Store)).Manifest!;
        File.WriteAllBytes(_directory.File(Manifest), (manifest with { FormatVersion = 3 }).ToBytes());
        JobInputException error = await Assert.ThrowsAsync<JobInputException>(() => Checkpointing.FindNewestAsync(Store));
        Assert.Contains("format 3", error.Message, StringComparison.Ordinal);
        Assert.False(File.Exists(_directory.File(Marker)));
    }

    [Fact]
    public async Task A_checkpoint_of_the_format_before_is_good()
    {
        CheckpointManifest manifest = (await Checkpointing.FindNewestAsync(Store)).Manifest!;
        File.WriteAllBytes(_directory.File(Manifest), (manifest with { FormatVersion = 1, Inputs = null }).ToBytes());
        Assert.Equal((30, 1), (await Checkpointing.FindNewestAsync(Store)).Manifest is { } found ? (found.Step, found.FormatVersion) : default);
    }

    [Fact]
    public async Task An_empty_store_has_no_checkpoint()
    {
        (CheckpointManifest? manifest, List<CheckpointFinding> findings) = await Checkpointing.FindNewestAsync(new DirectoryStore(_directory.File("new")));
        Assert.Null(manifest);
        Assert.Empty(findings);
    }

    [Fact]
    public async Task The_newest_attempt_counts_what_was_never_committed_too()
    {
        Assert.Equal(0, await new CheckpointReader(new DirectoryStore(_directory.File("new")), TimeProvider.System).NewestAttemptAsync(default));
        CheckpointReader reader = new(Store, TimeProvider.System);
        Assert.Equal(1, await reader.NewestAttemptAsync(default));
        await Store.TryCreateAsync("step-00000005/attempt-12/rank-0.safetensors", new byte[] { 1 }, default);
        Assert.Equal(12, await reader.NewestAttemptAsync(default));
    }

    [Fact]
    public async Task Verify_lists_every_state_and_changes_nothing()
    {
        Flip(History);
        await Checkpointing.FindNewestAsync(Store);
        await using (CheckpointWriter writer = Checkpointing.Writer(Store))
        {
            await writer.SaveAsync(40);
        }

        Flip("step-00000040/attempt-1/rank-0.safetensors");
        await Store.TryCreateAsync("step-00000050/attempt-1/rank-0.safetensors", new byte[] { 1 }, default);
        IReadOnlyList<StoredFile> before = await Store.ListAsync("", default);

        IReadOnlyList<CheckpointFinding> findings = await new CheckpointReader(Store, TimeProvider.System).VerifyAsync(default);

        Assert.Equal(
            [
                (50, CheckpointState.Incomplete, false), (40, CheckpointState.Damaged, false), (30, CheckpointState.Quarantined, false),
                (20, CheckpointState.Good, true), (10, CheckpointState.Good, false),
            ],
            findings.Select(f => (f.Step, f.State, f.Best)));
        Assert.Contains(History, findings[2].Message, StringComparison.Ordinal);
        Assert.Equal(before, await Store.ListAsync("", default));
    }

    [Fact]
    public async Task A_shard_that_changes_after_it_was_verified_is_not_loaded()
    {
        CheckpointManifest manifest = (await Checkpointing.FindNewestAsync(Store)).Manifest!;
        CheckpointReader reader = new(Store, TimeProvider.System);
        byte[] good = File.ReadAllBytes(_directory.File(Shard));
        foreach (byte[] changed in new[] { good[..^1], good[..20], [.. good[..^1], (byte)~good[^1]], [.. good[..9], (byte)'x', .. good[10..]] })
        {
            File.WriteAllBytes(_directory.File(Shard), changed);
            InvalidDataException error = await Assert.ThrowsAsync<InvalidDataException>(() => reader.ReadShardAsync(manifest.Shard(0), _ => null, default));
            Assert.Contains(Shard, error.Message, StringComparison.Ordinal);
        }

        Flip(History);
        await Assert.ThrowsAsync<InvalidDataException>(() => reader.ReadAttachmentAsync(manifest.Attachment("history.jsonl")!, default));
    }

    [Fact]
    public async Task A_store_that_does_not_answer_is_not_a_damaged_checkpoint()
    {
        CheckpointReader reader = new(new SilentStore(Store), TimeProvider.System);
        await Assert.ThrowsAsync<StoreException>(() => reader.FindNewestAsync("demo", Checkpointing.Fingerprint, default));
        Assert.False(File.Exists(_directory.File(Marker)));
    }

    [Fact]
    public async Task The_manifest_is_readable_json()
    {
        string json = Encoding.UTF8.GetString(await File.ReadAllBytesAsync(_directory.File(Manifest)));
        Assert.StartsWith("{\n  \"format_version\": 2,\n  \"job\": \"demo\",\n  \"fingerprint\": \"4f1c\",\n  \"step\": 30,", json, StringComparison.Ordinal);
        using System.Text.Json.JsonDocument document = System.Text.Json.JsonDocument.Parse(json);
        Assert.Equal("shard", document.RootElement.GetProperty("files")[0].GetProperty("kind").GetString());
        Assert.Equal(64, document.RootElement.GetProperty("checksum").GetString()!.Length);
    }

    private void Flip(string path)
    {
        byte[] bytes = File.ReadAllBytes(_directory.File(path));
        bytes[^1] ^= 1;
        File.WriteAllBytes(_directory.File(path), bytes);
    }

    private async Task RequireQuarantinedAsync(string path, string damage)
    {
        (CheckpointManifest? manifest, List<CheckpointFinding> findings) = await Checkpointing.FindNewestAsync(Store);
        Assert.True(manifest?.Step == 20, $"{path}, {damage}: {manifest?.Step} was taken");
        CheckpointFinding finding = Assert.Single(findings);
        Assert.Equal((30, CheckpointState.Quarantined), (finding.Step, finding.State));
        Assert.Contains(path, finding.Message, StringComparison.Ordinal);
        Assert.True(File.Exists(_directory.File(Marker)));
        Assert.True(File.Exists(_directory.File(Manifest)));
    }

    private sealed class SilentStore(ICheckpointStore inner) : ICheckpointStore
    {
        public string Address => inner.Address;

        public Task<Stream> OpenReadAsync(string path, CancellationToken cancellationToken) =>
            path == Shard ? throw new StoreException("no answer", new IOException()) : inner.OpenReadAsync(path, cancellationToken);

        public Task<IReadOnlyList<StoredFile>> ListAsync(string prefix, CancellationToken cancellationToken) => inner.ListAsync(prefix, cancellationToken);

        public Task<bool> TryCreateAsync(string path, ReadOnlyMemory<byte> content, CancellationToken cancellationToken) =>
            inner.TryCreateAsync(path, content, cancellationToken);

        public Task<WrittenContent> WriteAsync(string path, Func<Stream, CancellationToken, Task> write, CancellationToken cancellationToken) =>
            inner.WriteAsync(path, write, cancellationToken);

        public Task DeleteAsync(string path, CancellationToken cancellationToken) => inner.DeleteAsync(path, cancellationToken);
    }
}
