using System.Buffers;
using System.Security.Cryptography;

namespace Trainer.Worker.Checkpoints;

/// <summary>Reads a safetensors shard front to back, hashing all of it and copying the tensors that are asked for.</summary>
internal sealed class ShardStream(Stream stream, CheckpointFile file, string name)
{
    private const int Chunk = 1 << 20;
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

    public async Task<IReadOnlyList<TensorEntry>> ReadAsync(Func<TensorEntry, NativeBuffer?> destination, CancellationToken cancellationToken)
    {
        try
        {
            byte[] prefix = new byte[SafetensorsHeader.PrefixLength];
            await FillAsync(prefix, cancellationToken);
            byte[] json = new byte[SafetensorsHeader.ReadLength(prefix, file.Length, name)];
            await FillAsync(json, cancellationToken);
            SafetensorsHeader header = SafetensorsHeader.Parse(json, file.Length, name);
            foreach (TensorEntry entry in header.Tensors)
            {
                await ReadTensorAsync(entry, destination(entry), cancellationToken);
            }

            if (Convert.ToHexStringLower(_hash.GetHashAndReset()) != file.Sha256)
            {
                throw Changed(null);
            }

            return header.Tensors;
        }
        catch (Exception e) when (e is EndOfStreamException or JobInputException)
        {
            throw Changed(e);
        }
        finally
        {
            _hash.Dispose();
        }
    }

    private async Task ReadTensorAsync(TensorEntry entry, NativeBuffer? target, CancellationToken cancellationToken)
    {
        if (target is not null && target.Length != entry.Length)
        {
            throw new ArgumentException($"{name}: tensor '{entry.Name}' has {entry.Length} bytes, its destination {target.Length}");
        }

        byte[] skipped = target is null ? ArrayPool<byte>.Shared.Rent(Chunk) : [];
        for (long done = 0; done < entry.Length; done += Chunk)
        {
            int count = (int)Math.Min(Chunk, entry.Length - done);
            await FillAsync(target?.AsMemory(done, count) ?? skipped.AsMemory(0, count), cancellationToken);
        }

        if (target is null)
        {
            ArrayPool<byte>.Shared.Return(skipped);
        }
    }

    private async Task FillAsync(Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await stream.ReadExactlyAsync(buffer, cancellationToken);
        _hash.AppendData(buffer.Span);
    }

    private InvalidDataException Changed(Exception? inner) => new($"{name}: changed since it was verified", inner);
}
