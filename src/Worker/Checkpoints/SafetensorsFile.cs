using Microsoft.Win32.SafeHandles;

namespace Trainer.Worker.Checkpoints;

/// <summary>A safetensors file opened for reading. Reads go straight to the caller's memory and may run in parallel.</summary>
public sealed class SafetensorsFile : IDisposable
{
    private const int MaxRead = 64 << 20;
    private readonly SafeFileHandle _handle;
    private readonly Dictionary<string, TensorEntry> _byName;

    private SafetensorsFile(string path, SafeFileHandle handle, SafetensorsHeader header)
    {
        Path = path;
        _handle = handle;
        Tensors = header.Tensors;
        Metadata = header.Metadata;
        _byName = header.Tensors.ToDictionary(entry => entry.Name);
    }

    public string Path { get; }

    /// <summary>In the order of their data.</summary>
    public IReadOnlyList<TensorEntry> Tensors { get; }

    public IReadOnlyDictionary<string, string> Metadata { get; }

    /// <exception cref="JobInputException">The file is missing, truncated or contradicts the format.</exception>
    public static SafetensorsFile Open(string path)
    {
        SafeFileHandle handle;
        try
        {
            handle = File.OpenHandle(path, options: FileOptions.SequentialScan);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new JobInputException($"{path}: cannot be opened: {e.Message}", e);
        }

        try
        {
            return new SafetensorsFile(path, handle, ReadHeader(path, handle));
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    /// <summary>The entry of that name, or null.</summary>
    public TensorEntry? Find(string name) => _byName.GetValueOrDefault(name);

    /// <param name="entry">One of <see cref="Tensors"/>.</param>
    /// <param name="destination">Exactly the entry's length.</param>
    public void Read(TensorEntry entry, Span<byte> destination)
    {
        if (destination.Length != entry.Length)
        {
            throw new ArgumentException($"tensor '{entry.Name}' has {entry.Length} bytes, the destination {destination.Length}", nameof(destination));
        }

        ReadFully(entry, destination, entry.Offset);
    }

    /// <param name="entry">One of <see cref="Tensors"/>; may be longer than 2 GiB.</param>
    /// <param name="destination">Host memory of <paramref name="length"/> bytes.</param>
    /// <param name="length">Exactly the entry's length.</param>
    public unsafe void Read(TensorEntry entry, nint destination, long length)
    {
        if (length != entry.Length)
        {
            throw new ArgumentException($"tensor '{entry.Name}' has {entry.Length} bytes, the destination {length}", nameof(length));
        }

        for (long done = 0; done < length; done += MaxRead)
        {
            int size = (int)Math.Min(MaxRead, length - done);
            ReadFully(entry, new Span<byte>((byte*)destination + done, size), entry.Offset + done);
        }
    }

    public void Dispose() => _handle.Dispose();

    private static SafetensorsHeader ReadHeader(string path, SafeFileHandle handle)
    {
        long fileLength = RandomAccess.GetLength(handle);
        byte[] prefix = new byte[Math.Min(SafetensorsHeader.PrefixLength, fileLength)];
        RandomAccess.Read(handle, prefix, 0);
        byte[] json = new byte[SafetensorsHeader.ReadLength(prefix, fileLength, path)];
        int read = 0;
        while (read < json.Length && RandomAccess.Read(handle, json.AsSpan(read), SafetensorsHeader.PrefixLength + read) is > 0 and int count)
        {
            read += count;
        }

        return SafetensorsHeader.Parse(json, fileLength, path);
    }

    private void ReadFully(TensorEntry entry, Span<byte> destination, long offset)
    {
        while (destination.Length > 0)
        {
            int count = RandomAccess.Read(_handle, destination, offset);
            if (count == 0)
            {
                throw new JobInputException($"{Path}: tensor '{entry.Name}': the file became shorter while it was read");
            }

            destination = destination[count..];
            offset += count;
        }
    }
}
