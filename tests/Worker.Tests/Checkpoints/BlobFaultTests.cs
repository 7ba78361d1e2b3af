using Azure.Core;
using Trainer.Worker.Checkpoints;

namespace Trainer.Worker.Tests.Checkpoints;

[Collection(Azurite.Collection)]
public sealed class BlobFaultTests(Azurite azurite)
{
    private readonly ImpatientTime _time = new();
    private readonly BlobAddress _address = new($"test-{Guid.NewGuid():N}", "job");
    private FaultyTransport? _transport;

    [Theory]
    [InlineData(408)]
    [InlineData(429)]
    [InlineData(500)]
    [InlineData(503)]
    [InlineData(null)]
    public async Task A_transient_failure_is_tried_again(int? status)
    {
        // Every request fails twice before it is let through.
        BlobStore store = Open((n, _) => n % 3 == 0 ? null : new FaultyTransport.Fault(status));
        byte[] content = [.. Enumerable.Range(0, 300_000).Select(i => (byte)(i * 7))];

        await store.WriteAsync("a", async (stream, token) => await stream.WriteAsync(content, token), default);
        await using Stream stream = await store.OpenReadAsync("a", default);
        byte[] read = new byte[content.Length];
        await stream.ReadExactlyAsync(read);

        Assert.Equal(content, read);
        Assert.Equal([new StoredFile("a", content.Length)], await store.ListAsync("", default));
    }

    [Fact]
    public async Task An_outage_of_a_minute_is_survived()
    {
        BlobStore store = Open((_, _) => _time.Elapsed < TimeSpan.FromSeconds(60) ? new FaultyTransport.Fault() : null);
        Assert.True(await store.TryCreateAsync("manifest.json", new byte[] { 1 }, default));
        Assert.True(_time.Elapsed >= TimeSpan.FromSeconds(60));
        Assert.InRange(_transport!.Requests, 6, 60);
    }

    [Fact]
    public async Task An_outage_longer_than_the_budget_fails_with_the_cause()
    {
        BlobStore store = Open((_, _) => new FaultyTransport.Fault());
        StoreException failure = await Assert.ThrowsAsync<StoreException>(() => store.TryCreateAsync("manifest.json", new byte[] { 1 }, default));
        Assert.Contains("no answer for 300 s", failure.Message, StringComparison.Ordinal);
        Assert.Contains("Connection refused", failure.Message, StringComparison.Ordinal);
        Assert.Contains(_address.ToString(), failure.Message, StringComparison.Ordinal);
        Assert.True(_time.Elapsed >= TimeSpan.FromMinutes(5));
    }

    [Theory]
    [InlineData(400)]
    [InlineData(401)]
    [InlineData(403)]
    [InlineData(412)]
    public async Task A_permanent_failure_is_not_tried_again(int status)
    {
        BlobStore store = Open((_, _) => new FaultyTransport.Fault(status));
        StoreException failure = await Assert.ThrowsAsync<StoreException>(() => store.OpenReadAsync("a", default));
        Assert.Equal(1, _transport!.Requests);
        Assert.Equal(TimeSpan.Zero, _time.Elapsed);
        Assert.Contains($"{status}", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_refused_key_names_the_cure()
    {
        BlobStore store = Open((_, _) => new FaultyTransport.Fault(403));
        StoreException failure = await Assert.ThrowsAsync<StoreException>(() => store.OpenReadAsync("a", default));
        Assert.Contains("AZURE_STORAGE_CONNECTION_STRING", failure.Message, StringComparison.Ordinal);
    }

    // The service created the manifest, but its answer was lost: the retry finds the name taken, by ourselves.
    [Theory]
    [InlineData(500)]
    [InlineData(null)]
    public async Task A_create_whose_answer_was_lost_is_still_won(int? status)
    {
        bool lost = false;
        BlobStore store = Open((_, message) => !lost && (lost = IsCommit(message)) ? new FaultyTransport.Fault(status, AnswerLost: true) : null);
        await store.TryCreateAsync("earlier", new byte[] { 1 }, default);
        lost = false;

        Assert.True(await store.TryCreateAsync("manifest.json", new byte[] { 1 }, default));
        Assert.True(lost);
        Assert.False(await store.TryCreateAsync("manifest.json", new byte[] { 1 }, default));
    }

    [Fact]
    public async Task Waiting_out_an_outage_ends_with_cancellation()
    {
        using CancellationTokenSource cancellation = new();
        BlobStore store = Open((n, _) =>
        {
            if (n == 4)
            {
                cancellation.Cancel();
            }

            return new FaultyTransport.Fault(503);
        });
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            () => store.WriteAsync("a", async (stream, token) => await stream.WriteAsync(new byte[10], token), cancellation.Token));
    }

    private BlobStore Open(Func<int, HttpMessage, FaultyTransport.Fault?> plan)
    {
        _transport = new FaultyTransport(plan);
        return _address.Open(
            name => name == "AZURE_STORAGE_CONNECTION_STRING" ? azurite.ConnectionString : null,
            new BlobStoreOptions { BlockBytes = 64 << 10, Time = _time, Transport = _transport });
    }

    private static bool IsCommit(HttpMessage message) =>
        message.Request.Uri.Query.Contains("comp=blocklist", StringComparison.Ordinal);
}
