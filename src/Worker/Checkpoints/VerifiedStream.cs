using System.Security.Cryptography;

namespace Trainer.Worker.Checkpoints;

/// <summary>A file of a checkpoint while it is read: fails at its end when it is not what was written.</summary>
/// <param name="source">Is disposed with it.</param>
internal sealed class VerifiedStream(Stream source, CheckpointFile file) : Stream
{
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private long _read;
    private bool _ended;

    public override bool CanRead => true;

    /// <summary>Only so far as that its length is known, which archives ask for.</summary>
    public override bool CanSeek => true;

    public override bool CanWrite => false;

    public override long Length => file.Length;

    public override long Position { get => _read; set => throw new NotSupportedException("read once, from the beginning"); }

    /// <exception cref="InvalidDataException">The file has another length or hash.</exception>
    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        int read = _ended ? 0 : await source.ReadAsync(buffer, cancellationToken);
        _hash.AppendData(buffer.Span[..read]);
        _read += read;
        if (read == 0 && buffer.Length > 0 && !_ended)
        {
            _ended = true;
            if (_read != file.Length || Convert.ToHexStringLower(_hash.GetHashAndReset()) != file.Sha256)
            {
                throw Damaged();
            }
        }

        return _read > file.Length ? throw Damaged() : read;
    }

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException("read asynchronously");

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Flush()
    {
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            source.Dispose();
            _hash.Dispose();
        }

        base.Dispose(disposing);
    }

    private InvalidDataException Damaged() => new($"{file.Path} has other content than was written");
}
