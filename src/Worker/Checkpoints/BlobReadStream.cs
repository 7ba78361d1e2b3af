using System.Buffers;
using Azure;
using Azure.Storage.Blobs.Models;
using Azure.Storage.Blobs.Specialized;

namespace Trainer.Worker.Checkpoints;

/// <summary>Reads one version of a blob front to back by ranges, some ahead of the reader; each range is retried on its own.</summary>
internal sealed class BlobReadStream(
    BlockBlobClient blob, string path, long length, ETag version, BlobRequests requests, BlobStoreOptions options) : Stream
{
    private readonly Queue<(Task<bool> Download, byte[] Buffer, int Count)> _ahead = new();
    private readonly CancellationTokenSource _closed = new();
    private byte[]? _current;
    private int _consumed;
    private int _available;
    private long _requested;
    private long _position;

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        if (_consumed == _available && !await NextRangeAsync(cancellationToken))
        {
            return 0;
        }

        int count = Math.Min(buffer.Length, _available - _consumed);
        _current.AsMemory(_consumed, count).CopyTo(buffer);
        _consumed += count;
        _position += count;
        return count;
    }

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => false;

    public override long Length => length;

    public override long Position { get => _position; set => throw new NotSupportedException(); }

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException("read asynchronously");

    public override void Flush()
    {
    }

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override async ValueTask DisposeAsync()
    {
        await _closed.CancelAsync();
        await ((Task)Task.WhenAll(_ahead.Select(range => range.Download))).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _ahead.Clear();
        Release();
        _closed.Dispose();
        await base.DisposeAsync();
    }

    private async Task<bool> NextRangeAsync(CancellationToken cancellationToken)
    {
        Release();
        while (_ahead.Count < options.Parallelism && _requested < length)
        {
            int count = (int)Math.Min(options.BlockBytes, length - _requested);
            byte[] buffer = ArrayPool<byte>.Shared.Rent(count);
            _ahead.Enqueue((DownloadAsync(buffer, _requested, count), buffer, count));
            _requested += count;
        }

        if (!_ahead.TryPeek(out (Task<bool> Download, byte[] Buffer, int Count) range))
        {
            return false;
        }

        await range.Download.WaitAsync(cancellationToken);
        _ahead.Dequeue();
        (_current, _consumed, _available) = (range.Buffer, 0, range.Count);
        return true;
    }

    private Task<bool> DownloadAsync(byte[] buffer, long offset, int count)
    {
        BlobDownloadOptions range = new()
        {
            Range = new HttpRange(offset, count),
            Conditions = new BlobRequestConditions { IfMatch = version },
        };
        return requests.RunAsync($"read {path}", async token =>
        {
            using BlobDownloadStreamingResult result = await blob.DownloadStreamingAsync(range, token);
            await result.Content.ReadExactlyAsync(buffer.AsMemory(0, count), token);
            return true;
        }, _closed.Token);
    }

    private void Release()
    {
        if (_current is not null)
        {
            ArrayPool<byte>.Shared.Return(_current);
            _current = null;
        }
    }
}
