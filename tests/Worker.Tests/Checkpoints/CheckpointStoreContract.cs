using System.Security.Cryptography;
using System.Text;
using Trainer.Worker.Checkpoints;

namespace Trainer.Worker.Tests.Checkpoints;

/// <summary>What every checkpoint store must do; each store runs all of it.</summary>
public abstract class CheckpointStoreContract
{
    private const string Path = "step-00000001/attempt-1/rank-0.safetensors";

    /// <summary>An empty store.</summary>
    protected abstract ICheckpointStore Store { get; }

    /// <summary>Opens the same store as another process would.</summary>
    protected abstract ICheckpointStore Reopen();

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(100_000)]
    [InlineData(262_144)]
    [InlineData(1_000_001)]
    public async Task What_was_written_reads_back_with_its_length_and_hash(int length)
    {
        byte[] content = RandomBytes(length);
        WrittenContent written = await WriteAsync(Path, content);

        Assert.Equal(new WrittenContent(length, Convert.ToHexStringLower(SHA256.HashData(content))), written);
        Assert.Equal(content, await ReadAsync(Reopen(), Path));
        Assert.Equal([new StoredFile(Path, length)], await Store.ListAsync("", default));
    }

    [Fact]
    public async Task Writing_again_replaces_the_file()
    {
        await WriteAsync(Path, RandomBytes(300_000));
        await WriteAsync(Path, [1, 2, 3]);
        Assert.Equal([1, 2, 3], await ReadAsync(Store, Path));
    }

    [Fact]
    public async Task A_write_that_fails_changes_nothing()
    {
        await WriteAsync(Path, [1, 2, 3]);
        await Assert.ThrowsAsync<TimeZoneNotFoundException>(() => Store.WriteAsync(Path, async (stream, token) =>
        {
            await stream.WriteAsync(RandomBytes(500_000), token);
            throw new TimeZoneNotFoundException();
        }, default));
        await Assert.ThrowsAsync<TimeZoneNotFoundException>(
            () => Store.WriteAsync("new", (_, _) => throw new TimeZoneNotFoundException(), default));

        Assert.Equal([1, 2, 3], await ReadAsync(Store, Path));
        Assert.Equal([new StoredFile(Path, 3)], await Reopen().ListAsync("", default));
    }

    [Fact]
    public async Task A_cancelled_write_changes_nothing()
    {
        using CancellationTokenSource cancellation = new();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => Store.WriteAsync(Path, async (stream, token) =>
        {
            await stream.WriteAsync(RandomBytes(500_000), token);
            await cancellation.CancelAsync();
            await stream.WriteAsync(RandomBytes(500_000), token);
        }, cancellation.Token));
        Assert.Empty(await Store.ListAsync("", default));
    }

    [Fact]
    public async Task Nobody_sees_a_file_before_it_is_whole()
    {
        await Store.WriteAsync(Path, async (stream, token) =>
        {
            await stream.WriteAsync(RandomBytes(600_000), token);
            Assert.Empty(await Reopen().ListAsync("", token));
            await Assert.ThrowsAsync<FileNotFoundException>(() => Reopen().OpenReadAsync(Path, token));
        }, default);
        Assert.Single(await Store.ListAsync("", default));
    }

    [Fact]
    public async Task Create_is_won_once()
    {
        Assert.True(await Store.TryCreateAsync("manifest.json", "first"u8.ToArray(), default));
        Assert.False(await Reopen().TryCreateAsync("manifest.json", "second"u8.ToArray(), default));
        Assert.False(await Store.TryCreateAsync("manifest.json", "first"u8.ToArray(), default));
        Assert.Equal("first"u8.ToArray(), await ReadAsync(Store, "manifest.json"));
    }

    [Fact]
    public async Task Create_is_won_by_exactly_one_of_100_at_once()
    {
        bool[] won = await Task.WhenAll(Enumerable.Range(0, 100).Select(
            i => Task.Run(() => Store.TryCreateAsync("step-1/manifest.json", Encoding.UTF8.GetBytes($"writer {i}"), default))));

        Assert.Equal(1, won.Count(w => w));
        byte[] content = await ReadAsync(Store, "step-1/manifest.json");
        Assert.Equal($"writer {Array.IndexOf(won, true)}", Encoding.UTF8.GetString(content));
    }

    [Fact]
    public async Task A_deleted_name_can_be_created_again()
    {
        Assert.True(await Store.TryCreateAsync("a/manifest.json", new byte[] { 1 }, default));
        await Store.DeleteAsync("a/manifest.json", default);
        Assert.Empty(await Store.ListAsync("", default));
        Assert.True(await Store.TryCreateAsync("a/manifest.json", new byte[] { 2 }, default));
    }

    [Fact]
    public async Task Deleting_nothing_is_no_error()
    {
        await Store.DeleteAsync("step-1/nothing", default);
        await WriteAsync("step-1/a", [1]);
        await Store.DeleteAsync("step-1/nothing", default);
        Assert.Single(await Store.ListAsync("", default));
    }

    [Fact]
    public async Task Reading_nothing_says_which_file()
    {
        FileNotFoundException first = await Assert.ThrowsAsync<FileNotFoundException>(() => Store.OpenReadAsync("a/b", default));
        await WriteAsync("a/c", [1]);
        FileNotFoundException second = await Assert.ThrowsAsync<FileNotFoundException>(() => Store.OpenReadAsync("a/b", default));
        Assert.Contains("a/b", first.Message, StringComparison.Ordinal);
        Assert.Contains("a/b", second.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_list_is_filtered_by_prefix_and_ordered()
    {
        foreach (string path in new[] { "step-2/b", "step-1/b", "step-10/a", "step-1/a/c", "other" })
        {
            await WriteAsync(path, new byte[path.Length]);
        }

        Assert.Equal(["step-1/a/c", "step-1/b", "step-10/a", "step-2/b"], (await Store.ListAsync("step-", default)).Select(f => f.Path));
        Assert.Equal(["step-1/a/c", "step-1/b"], (await Store.ListAsync("step-1/", default)).Select(f => f.Path));
        Assert.Equal(["step-1/a/c", "step-1/b", "step-10/a"], (await Store.ListAsync("step-1", default)).Select(f => f.Path));
        Assert.Equal(5, (await Store.ListAsync("", default)).Count);
        Assert.All(await Store.ListAsync("", default), file => Assert.Equal(file.Path.Length, file.Length));
    }

    [Fact]
    public async Task Writers_of_different_files_do_not_disturb_each_other()
    {
        byte[][] contents = [.. Enumerable.Range(0, 8).Select(i => RandomBytes(200_000 + i))];
        await Task.WhenAll(contents.Select((content, i) => WriteAsync($"step-1/attempt-1/rank-{i}", content)));
        for (int i = 0; i < contents.Length; i++)
        {
            Assert.Equal(contents[i], await ReadAsync(Store, $"step-1/attempt-1/rank-{i}"));
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData("/etc/passwd")]
    [InlineData("../outside")]
    [InlineData("a/../../outside")]
    [InlineData("a/./b")]
    [InlineData("a//b")]
    [InlineData("a/")]
    [InlineData(".tmp/x")]
    [InlineData("a\\b")]
    [InlineData("a\0b")]
    [InlineData("a b")]
    public async Task No_path_leaves_the_store(string path)
    {
        await Assert.ThrowsAsync<ArgumentException>(() => WriteAsync(path, [1]));
        await Assert.ThrowsAsync<ArgumentException>(() => Store.TryCreateAsync(path, new byte[] { 1 }, default));
        await Assert.ThrowsAsync<ArgumentException>(() => Store.OpenReadAsync(path, default));
        await Assert.ThrowsAsync<ArgumentException>(() => Store.DeleteAsync(path, default));
        Assert.Empty(await Store.ListAsync("", default));
    }

    protected static byte[] RandomBytes(int length)
    {
        byte[] bytes = new byte[length];
        new Random(length).NextBytes(bytes);
        return bytes;
    }

    protected static async Task<byte[]> ReadAsync(ICheckpointStore store, string path)
    {
        await using Stream stream = await store.OpenReadAsync(path, default);
        using MemoryStream content = new();
        await stream.CopyToAsync(content);
        return content.ToArray();
    }

    // In uneven pieces, as a safetensors writer does.
    private Task<WrittenContent> WriteAsync(string path, byte[] content) => Store.WriteAsync(path, async (stream, token) =>
    {
        for (int done = 0, piece = 1; done < content.Length; done += piece, piece = piece * 3 + 1)
        {
            piece = Math.Min(piece, content.Length - done);
            await stream.WriteAsync(content.AsMemory(done, piece), token);
        }
    }, default);
}
