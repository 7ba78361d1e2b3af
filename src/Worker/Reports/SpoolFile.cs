using Microsoft.Win32.SafeHandles;

namespace Trainer.Worker.Reports;

/// <summary>
/// A regular file that only grows, written by nobody else. What a full disk does not take waits in memory, in order and to the byte,
/// and is written when there is room again: a training is worth more than its log.
/// </summary>
/// <param name="handle">Becomes this object's. Appending or not makes no difference.</param>
public sealed class SpoolFile(SafeFileHandle handle) : IDisposable
{
    private const int MostWaiting = 64 << 20;

    private readonly Lock _gate = new();
    private readonly MemoryStream _waiting = new();
    private string? _problem;

    /// <summary>Why bytes wait; null when none do.</summary>
    public string? Problem => Volatile.Read(ref _problem);

    /// <summary>What the file lacks.</summary>
    public byte[] Waiting
    {
        get
        {
            lock (_gate)
            {
                return _waiting.ToArray();
            }
        }
    }

    /// <exception cref="IOException">The file takes nothing, and so much waits already that no more is kept.</exception>
    public void Append(ReadOnlySpan<byte> bytes)
    {
        lock (_gate)
        {
            Retry();
            int written = _waiting.Length == 0 ? Write(bytes) : 0;
            if (_waiting.Length + bytes.Length - written > MostWaiting)
            {
                throw new IOException(_problem);
            }
            _waiting.Write(bytes[written..]);
        }
    }

    /// <summary>Writes what waits, if there is room now.</summary>
    public void Flush()
    {
        lock (_gate)
        {
            Retry();
        }
    }

    public void Dispose()
    {
        Flush();
        handle.Dispose();
        _waiting.Dispose();
    }

    private void Retry()
    {
        if (_waiting.Length == 0)
        {
            return;
        }
        byte[] left = _waiting.ToArray();
        int written = Write(left);
        _waiting.SetLength(0);
        _waiting.Write(left, written, left.Length - written);
    }

    /// <returns>How many of the bytes are in the file now: its length tells, because nobody else writes.</returns>
    private int Write(ReadOnlySpan<byte> bytes)
    {
        long before = RandomAccess.GetLength(handle);
        try
        {
            RandomAccess.Write(handle, bytes, before);
            Volatile.Write(ref _problem, null);
            return bytes.Length;
        }
        catch (IOException error)
        {
            Volatile.Write(ref _problem, FullDisk.Tell(error));
            return (int)(RandomAccess.GetLength(handle) - before);
        }
    }
}
