using Trainer.Worker.Checkpoints;

namespace Trainer.Worker.Tests.Checkpoints;

/// <summary>The contract with blocks so small that most files take many, and more than are in flight at once.</summary>
[Collection(Azurite.Collection)]
public sealed class BlobStoreTests(Azurite azurite) : CheckpointStoreContract
{
    private readonly BlobAddress _address = new($"test-{Guid.NewGuid():N}", "jobs/one");

    protected override ICheckpointStore Store => field ??= Reopen();

    protected override ICheckpointStore Reopen() => Open(_address);

    [Fact]
    public async Task Prefixes_share_a_container_without_seeing_each_other()
    {
        BlobStore other = Open(_address with { Prefix = "jobs/one-more" });
        await Store.TryCreateAsync("a", new byte[] { 1 }, default);
        await other.TryCreateAsync("b", new byte[] { 2 }, default);
        BlobStore all = Open(_address with { Prefix = "" });

        Assert.Equal(["a"], (await Store.ListAsync("", default)).Select(f => f.Path));
        Assert.Equal(["b"], (await other.ListAsync("", default)).Select(f => f.Path));
        Assert.Equal(["jobs/one-more/b", "jobs/one/a"], (await all.ListAsync("", default)).Select(f => f.Path));
    }

    [Fact]
    public async Task A_reader_keeps_the_version_that_it_opened_or_fails()
    {
        byte[] first = RandomBytes(900_000);
        await Store.WriteAsync("a", async (stream, token) => await stream.WriteAsync(first, token), default);
        await using Stream stream = await Store.OpenReadAsync("a", default);
        await stream.ReadExactlyAsync(new byte[1000]);
        await Store.WriteAsync("a", async (s, token) => await s.WriteAsync(new byte[900_000], token), default);

        StoreException failure = await Assert.ThrowsAsync<StoreException>(() => stream.CopyToAsync(Stream.Null));
        Assert.Contains("412", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_client_never_loads_the_assembly_that_some_feeds_lack()
    {
        await Store.WriteAsync("a", async (stream, token) => await stream.WriteAsync(RandomBytes(900_000), token), default);
        await Store.TryCreateAsync("b", new byte[] { 2 }, default);
        await ReadAsync(Store, "a");
        await Store.DeleteAsync("a", default);
        Assert.DoesNotContain(AppDomain.CurrentDomain.GetAssemblies(), assembly => assembly.GetName().Name == "System.IO.Hashing");
    }

    private BlobStore Open(BlobAddress address) => address.Open(
        name => name == "AZURE_STORAGE_CONNECTION_STRING" ? azurite.ConnectionString : null,
        new BlobStoreOptions { BlockBytes = 64 << 10, Parallelism = 3 });
}
