using System.Buffers.Binary;
using System.Text.Json;

namespace Trainer.Worker.Checkpoints;

/// <summary>
/// The JSON head of a safetensors file: u64 length, JSON padded with spaces, then the tensors back to back. Everything in it
/// is checked before anyone allocates or reads by it, since files come from strangers.
/// </summary>
public sealed class SafetensorsHeader
{
    /// <summary>Bytes of the length field in front of the JSON.</summary>
    public const int PrefixLength = 8;

    /// <summary>The format's own limit of the JSON.</summary>
    public const long MaxJsonLength = 100_000_000;

    private SafetensorsHeader(IReadOnlyList<TensorEntry> tensors, IReadOnlyDictionary<string, string> metadata, long fileLength)
    {
        Tensors = tensors;
        Metadata = metadata;
        FileLength = fileLength;
    }

    /// <summary>In the order of their data.</summary>
    public IReadOnlyList<TensorEntry> Tensors { get; }

    public IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>Bytes of the whole file.</summary>
    public long FileLength { get; }

    /// <summary>Checks the length field and returns the length of the JSON behind it.</summary>
    /// <param name="prefix">The first 8 bytes, fewer when the file is shorter.</param>
    /// <param name="fileLength">Bytes of the file.</param>
    /// <param name="file">Name for messages.</param>
    /// <exception cref="JobInputException">The field is missing or absurd.</exception>
    public static int ReadLength(ReadOnlySpan<byte> prefix, long fileLength, string file)
    {
        if (prefix.Length < PrefixLength)
        {
            throw Damaged(file, $"truncated: a safetensors file has at least 8 bytes, this one has {fileLength}");
        }

        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(prefix);
        if (length > MaxJsonLength)
        {
            throw Damaged(file, $"not a safetensors file: its header claims {length} bytes (at most {MaxJsonLength} are allowed)");
        }

        return (long)length <= fileLength - PrefixLength
            ? (int)length
            : throw Damaged(file, $"truncated: its header needs {PrefixLength + length} bytes, the file has {fileLength}");
    }

    /// <param name="json">The JSON behind the length field.</param>
    /// <param name="fileLength">Bytes of the whole file.</param>
    /// <param name="file">Name for messages.</param>
    /// <exception cref="JobInputException">Anything that contradicts the format, the tensor named.</exception>
    public static SafetensorsHeader Parse(ReadOnlyMemory<byte> json, long fileLength, string file)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(json);
            return Parse(document.RootElement, PrefixLength + json.Length, fileLength, file);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw Damaged(file, $"its safetensors header is not valid JSON: {e.Message}");
        }
    }

    private static SafetensorsHeader Parse(JsonElement root, long dataStart, long fileLength, string file)
    {
        if (root.ValueKind != JsonValueKind.Object)
        {
            throw Damaged(file, $"its safetensors header is a JSON {root.ValueKind}, not an object");
        }

        Dictionary<string, string> metadata = [];
        Dictionary<string, TensorEntry> tensors = [];
        bool hasMetadata = false;
        foreach (JsonProperty property in root.EnumerateObject())
        {
            bool added = property.Name == "__metadata__"
                ? !hasMetadata
                : tensors.TryAdd(property.Name, ParseTensor(property, dataStart, file));
            if (!added)
            {
                throw Damaged(file, $"tensor '{property.Name}': the header names it twice");
            }

            if (property.Name == "__metadata__")
            {
                hasMetadata = true;
                ParseMetadata(property.Value, metadata, file);
            }
        }

        TensorEntry[] ordered = [.. tensors.Values.OrderBy(entry => entry.Offset).ThenBy(entry => entry.Length)];
        RequireContiguous(ordered, dataStart, fileLength, file);
        return new SafetensorsHeader(ordered, metadata, fileLength);
    }

    private static void ParseMetadata(JsonElement value, Dictionary<string, string> metadata, string file)
    {
        if (value.ValueKind != JsonValueKind.Object)
        {
            throw Damaged(file, $"__metadata__ is a JSON {value.ValueKind}, not an object of strings");
        }

        foreach (JsonProperty property in value.EnumerateObject())
        {
            if (property.Value.ValueKind != JsonValueKind.String || !metadata.TryAdd(property.Name, property.Value.GetString()!))
            {
                throw Damaged(file, $"__metadata__: '{property.Name}' is not a string or is there twice");
            }
        }
    }

    private static TensorEntry ParseTensor(JsonProperty property, long dataStart, string file)
    {
        JobInputException Wrong(string what) => Damaged(file, $"tensor '{property.Name}': {what}");

        if (property.Value.ValueKind != JsonValueKind.Object)
        {
            throw Wrong($"described by a JSON {property.Value.ValueKind}, not an object");
        }

        Dictionary<string, JsonElement> fields = [];
        foreach (JsonProperty field in property.Value.EnumerateObject())
        {
            if (field.Name is not ("dtype" or "shape" or "data_offsets"))
            {
                throw Wrong($"unknown field '{field.Name}'");
            }

            if (!fields.TryAdd(field.Name, field.Value))
            {
                throw Wrong($"field '{field.Name}' is there twice");
            }
        }

        if (!fields.TryGetValue("dtype", out JsonElement dtypeField)
            || !fields.TryGetValue("shape", out JsonElement shapeField)
            || !fields.TryGetValue("data_offsets", out JsonElement offsetsField))
        {
            throw Wrong("needs dtype, shape and data_offsets");
        }

        if (dtypeField.ValueKind != JsonValueKind.String || !TensorDTypes.TryParse(dtypeField.GetString(), out TensorDType dtype))
        {
            string known = string.Join(", ", Enum.GetValues<TensorDType>().Select(TensorDTypes.SafetensorsName));
            throw Wrong($"unknown dtype {dtypeField.GetRawText()}; known are {known}");
        }

        if (!TryReadLongs(shapeField, out long[] shape) || shape.Any(size => size < 0))
        {
            throw Wrong($"shape {shapeField.GetRawText()} is not a list of sizes");
        }

        if (!TryReadLongs(offsetsField, out long[] offsets) || offsets.Length != 2)
        {
            throw Wrong($"data_offsets {offsetsField.GetRawText()} are not two 64-bit integers");
        }

        if (offsets[0] < 0 || offsets[1] < offsets[0] || offsets[1] > long.MaxValue - dataStart)
        {
            throw Wrong($"data_offsets [{offsets[0]}, {offsets[1]}] are negative, reversed or beyond any file");
        }

        long length = offsets[1] - offsets[0];
        if (ByteLength(dtype, shape) is not { } expected)
        {
            throw Wrong($"shape [{string.Join(", ", shape)}] of {dtype.SafetensorsName()} overflows 64 bits");
        }

        return expected == length
            ? new TensorEntry(property.Name, dtype, shape, dataStart + offsets[0], length)
            : throw Wrong($"shape [{string.Join(", ", shape)}] of {dtype.SafetensorsName()} takes {expected} bytes, data_offsets give {length}");
    }

    private static void RequireContiguous(TensorEntry[] ordered, long dataStart, long fileLength, string file)
    {
        long end = dataStart;
        TensorEntry? previous = null;
        foreach (TensorEntry entry in ordered)
        {
            if (entry.Offset < end)
            {
                throw Damaged(file, $"tensor '{entry.Name}': its data overlap those of '{previous?.Name}'");
            }

            if (entry.Offset > end)
            {
                throw Damaged(file, $"tensor '{entry.Name}': a hole of {entry.Offset - end} bytes before its data");
            }

            end = entry.Offset + entry.Length;
            previous = entry;
        }

        if (fileLength < end)
        {
            TensorEntry cut = ordered.First(entry => entry.Offset + entry.Length > fileLength);
            throw Damaged(file, $"truncated: its header needs {end} bytes, the file has {fileLength} (tensor '{cut.Name}' is the first cut off)");
        }

        if (fileLength > end)
        {
            throw Damaged(file, $"{fileLength - end} bytes after its last tensor: its header describes {end} bytes, the file has {fileLength}");
        }
    }

    private static JobInputException Damaged(string file, string what) => new($"{file}: {what}; download or write it again");

    private static long? ByteLength(TensorDType dtype, long[] shape)
    {
        // A size of zero makes the tensor empty whatever the others are.
        if (shape.Contains(0))
        {
            return 0;
        }

        Int128 length = dtype.Size();
        foreach (long size in shape)
        {
            length *= size;
            if (length > long.MaxValue)
            {
                return null;
            }
        }

        return (long)length;
    }

    private static bool TryReadLongs(JsonElement element, out long[] values)
    {
        values = [];
        if (element.ValueKind != JsonValueKind.Array)
        {
            return false;
        }

        long[] read = new long[element.GetArrayLength()];
        int count = 0;
        foreach (JsonElement item in element.EnumerateArray())
        {
            if (item.ValueKind != JsonValueKind.Number || !item.TryGetInt64(out read[count++]))
            {
                return false;
            }
        }

        values = read;
        return true;
    }
}
