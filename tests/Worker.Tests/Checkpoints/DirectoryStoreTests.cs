using Trainer.Worker.Checkpoints;

namespace Trainer.Worker.Tests.Checkpoints;

public sealed class DirectoryStoreTests : CheckpointStoreContract, IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    protected override ICheckpointStore Store => field ??= new DirectoryStore(_directory.File("store"));

    protected override ICheckpointStore Reopen() => new DirectoryStore(_directory.File("store"));

    [Fact]
    public async Task What_a_killed_writer_left_is_swept_but_not_what_a_living_one_writes()
    {
        string temporary = _directory.File("store/.tmp");
        Directory.CreateDirectory(temporary);
        File.WriteAllText(Path.Combine(temporary, "dead"), "half a shard");
        File.WriteAllText(Path.Combine(temporary, "young"), "half a shard");
        using FileStream living = new(Path.Combine(temporary, "living"), FileMode.CreateNew, FileAccess.Write, FileShare.None);
        foreach (string old in new[] { "dead", "living" })
        {
            File.SetLastWriteTimeUtc(Path.Combine(temporary, old), DateTime.UtcNow.AddMinutes(-5));
        }

        await Store.TryCreateAsync("a", new byte[] { 1 }, default);
        Assert.Equal(["living", "young"], Directory.GetFiles(temporary).Select(Path.GetFileName).Order());
    }

    [Fact]
    public async Task Nothing_is_left_beside_the_files()
    {
        await Store.TryCreateAsync("step-1/a", new byte[] { 1 }, default);
        await Store.TryCreateAsync("step-1/a", new byte[] { 2 }, default);
        await Store.WriteAsync("step-2/attempt-1/b", async (stream, token) => await stream.WriteAsync(new byte[9], token), default);
        await Store.DeleteAsync("step-2/attempt-1/b", default);

        string[] entries = Directory.GetFileSystemEntries(_directory.File("store"), "*", SearchOption.AllDirectories);
        Assert.Equal([".tmp", "step-1", "step-1/a"], entries.Select(e => Path.GetRelativePath(_directory.File("store"), e)).Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task Opening_and_reading_creates_nothing()
    {
        Assert.Empty(await Store.ListAsync("", default));
        await Store.DeleteAsync("a", default);
        Assert.False(Directory.Exists(_directory.File("store")));
    }

    public void Dispose() => _directory.Dispose();
}
