using System.Buffers;
using System.Buffers.Binary;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Trainer.Worker.Checkpoints;

/// <summary>
/// Streams a safetensors file: the header first, then each tensor in the order of the specs. The same specs, metadata and
/// data give the same bytes. Call <see cref="StartAsync"/>, WriteAsync for every tensor, then <see cref="Complete"/>.
/// </summary>
public sealed class SafetensorsWriter
{
    private const int Chunk = 4 << 20;
    private readonly Stream _stream;
    private readonly IReadOnlyList<TensorSpec> _tensors;
    private readonly Action? _progress;
    private int _next;

    private SafetensorsWriter(Stream stream, IReadOnlyList<TensorSpec> tensors, Action? progress)
    {
        _stream = stream;
        _tensors = tensors;
        _progress = progress;
    }

    /// <summary>Writes the header.</summary>
    /// <param name="stream">Stays open; the caller's.</param>
    /// <param name="tensors">Unique names.</param>
    /// <param name="metadata">E.g. format = pt, which transformers asks for.</param>
    /// <param name="cancellationToken">Ends the write.</param>
    /// <param name="progress">Called whenever the stream has taken some bytes.</param>
    public static async Task<SafetensorsWriter> StartAsync(
        Stream stream, IReadOnlyList<TensorSpec> tensors, IReadOnlyDictionary<string, string>? metadata, CancellationToken cancellationToken,
        Action? progress = null)
    {
        await stream.WriteAsync(Header(tensors, metadata), cancellationToken);
        return new SafetensorsWriter(stream, tensors, progress);
    }

    /// <summary>Bytes of the file that these specs give.</summary>
    public static long FileLength(IReadOnlyList<TensorSpec> tensors, IReadOnlyDictionary<string, string>? metadata) =>
        Header(tensors, metadata).Length + tensors.Sum(tensor => tensor.Length);

    /// <summary>The next tensor in order, named so that a mix-up is an error.</summary>
    public async Task WriteAsync(string name, ReadOnlyMemory<byte> data, CancellationToken cancellationToken)
    {
        Take(name, data.Length);
        await _stream.WriteAsync(data, cancellationToken);
    }

    /// <inheritdoc cref="WriteAsync(string, ReadOnlyMemory{byte}, CancellationToken)"/>
    public async Task WriteAsync(string name, NativeBuffer data, CancellationToken cancellationToken)
    {
        Take(name, data.Length);
        for (long done = 0; done < data.Length; done += Chunk)
        {
            await _stream.WriteAsync(data.AsMemory(done, (int)Math.Min(Chunk, data.Length - done)), cancellationToken);
            _progress?.Invoke();
        }
    }

    /// <summary>Throws when a tensor was not written.</summary>
    public void Complete()
    {
        if (_next < _tensors.Count)
        {
            throw new InvalidOperationException($"tensor '{_tensors[_next].Name}' was not written");
        }
    }

    private void Take(string name, long length)
    {
        TensorSpec expected = _next < _tensors.Count
            ? _tensors[_next]
            : throw new InvalidOperationException($"tensor '{name}' is not in the header: all {_tensors.Count} are written");
        if (expected.Name != name || expected.Length != length)
        {
            throw new InvalidOperationException($"tensor '{name}' of {length} bytes was given, '{expected.Name}' of {expected.Length} is next");
        }

        _next++;
    }

    private static byte[] Header(IReadOnlyList<TensorSpec> tensors, IReadOnlyDictionary<string, string>? metadata)
    {
        ArrayBufferWriter<byte> buffer = new();
        buffer.Write(stackalloc byte[SafetensorsHeader.PrefixLength]);
        using (Utf8JsonWriter json = new(buffer, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            json.WriteStartObject();
            WriteMetadata(json, metadata);
            WriteTensors(json, tensors);
            json.WriteEndObject();
        }

        // Spaces after the JSON align the data to 8 bytes.
        int padding = -buffer.WrittenCount & 7;
        buffer.GetSpan(padding)[..padding].Fill((byte)' ');
        buffer.Advance(padding);
        byte[] header = buffer.WrittenSpan.ToArray();
        BinaryPrimitives.WriteInt64LittleEndian(header, header.Length - SafetensorsHeader.PrefixLength);
        return header;
    }

    private static void WriteMetadata(Utf8JsonWriter json, IReadOnlyDictionary<string, string>? metadata)
    {
        if (metadata is { Count: > 0 })
        {
            json.WriteStartObject("__metadata__");
            foreach ((string key, string value) in metadata.OrderBy(pair => pair.Key, StringComparer.Ordinal))
            {
                json.WriteString(key, value);
            }

            json.WriteEndObject();
        }
    }

    private static void WriteTensors(Utf8JsonWriter json, IReadOnlyList<TensorSpec> tensors)
    {
        HashSet<string> names = ["__metadata__"];
        long offset = 0;
        foreach (TensorSpec tensor in tensors)
        {
            if (!names.Add(tensor.Name))
            {
                throw new ArgumentException($"tensor '{tensor.Name}' is there twice, or the name is reserved", nameof(tensors));
            }

            json.WriteStartObject(tensor.Name);
            json.WriteString("dtype", tensor.DType.SafetensorsName());
            json.WriteStartArray("shape");
            foreach (long size in tensor.Shape)
            {
                json.WriteNumberValue(size);
            }

            json.WriteEndArray();
            json.WriteStartArray("data_offsets");
            json.WriteNumberValue(offset);
            json.WriteNumberValue(offset += tensor.Length);
            json.WriteEndArray();
            json.WriteEndObject();
        }
    }
}
