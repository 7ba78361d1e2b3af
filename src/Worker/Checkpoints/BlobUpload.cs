using System.Buffers;
using System.Text;
using Azure.Storage.Blobs;
using Azure.Storage.Blobs.Models;
using Azure.Storage.Blobs.Specialized;

namespace Trainer.Worker.Checkpoints;

/// <summary>Collects written bytes into blocks and stages them a few at a time; nothing is visible before the commit.</summary>
internal sealed class BlobUpload(
    BlobContainerClient container, BlockBlobClient blob, string path, BlobRequests requests, BlobStoreOptions options) : IAsyncDisposable
{
    // Blocks of an earlier, interrupted upload of this blob may still wait at the service: ids of our own never mix with them.
    private readonly string _id = Guid.NewGuid().ToString("N");
    private readonly List<string> _blocks = [];
    private readonly Queue<Task<byte[]>> _inFlight = new();
    private readonly CancellationTokenSource _abandoned = new();
    private byte[]? _current;
    private int _filled;

    public async ValueTask WriteAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        while (bytes.Length > 0)
        {
            _current ??= await TakeBufferAsync();
            int count = Math.Min(bytes.Length, options.BlockBytes - _filled);
            bytes[..count].CopyTo(_current.AsMemory(_filled));
            _filled += count;
            bytes = bytes[count..];
            if (_filled == options.BlockBytes)
            {
                Stage(cancellationToken);
            }
        }
    }

    /// <summary>Makes what was written the content of the blob, in one request.</summary>
    /// <param name="conditions">Null: replaces.</param>
    /// <param name="metadata">Stored with the blob.</param>
    /// <param name="cancellationToken">Ends the waiting.</param>
    public async Task CommitAsync(BlobRequestConditions? conditions, IDictionary<string, string>? metadata, CancellationToken cancellationToken)
    {
        if (_filled > 0)
        {
            Stage(cancellationToken);
        }

        while (_inFlight.TryDequeue(out Task<byte[]>? staged))
        {
            ArrayPool<byte>.Shared.Return(await staged);
        }

        CommitBlockListOptions commit = new() { Conditions = conditions, Metadata = metadata };
        await RequestAsync("commit", token => blob.CommitBlockListAsync(_blocks, commit, token), cancellationToken);
    }

    public async ValueTask DisposeAsync()
    {
        await _abandoned.CancelAsync();
        await ((Task)Task.WhenAll(_inFlight)).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _abandoned.Dispose();
        if (_current is not null)
        {
            ArrayPool<byte>.Shared.Return(_current);
        }
    }

    // The oldest block's buffer comes back when it is staged: this bounds memory, and its failure surfaces here.
    private async ValueTask<byte[]> TakeBufferAsync() =>
        _inFlight.Count < options.Parallelism ? ArrayPool<byte>.Shared.Rent(options.BlockBytes) : await _inFlight.Dequeue();

    private void Stage(CancellationToken cancellationToken)
    {
        string block = Convert.ToBase64String(Encoding.ASCII.GetBytes($"{_id}{_blocks.Count:D6}"));
        _blocks.Add(block);
        _inFlight.Enqueue(StageAsync(block, _current!, _filled, cancellationToken));
        _current = null;
        _filled = 0;
    }

    private async Task<byte[]> StageAsync(string block, byte[] buffer, int count, CancellationToken cancellationToken)
    {
        using CancellationTokenSource both = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _abandoned.Token);
        await RequestAsync(
            "write",
            token => blob.StageBlockAsync(block, new MemoryStream(buffer, 0, count, writable: false), options: null, token),
            both.Token);
        return buffer;
    }

    // The container is created when it turns out to be missing: a key that may only write blobs never needs to ask for it.
    private async Task RequestAsync<T>(string verb, Func<CancellationToken, Task<T>> request, CancellationToken cancellationToken)
    {
        try
        {
            await requests.RunAsync($"{verb} {path}", request, cancellationToken);
        }
        catch (FileNotFoundException)
        {
            await requests.RunAsync(
                $"create container {container.Name}", token => container.CreateIfNotExistsAsync(cancellationToken: token), cancellationToken);
            await requests.RunAsync($"{verb} {path}", request, cancellationToken);
        }
    }
}
