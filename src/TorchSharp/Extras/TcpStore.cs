using TorchSharp.Native;

namespace TorchSharp.Extras;

/// <summary>c10d's TCP store: where the ranks of a group find each other. The one that serves it disposes it last.</summary>
public sealed unsafe class TcpStore : IDisposable
{
    private nint _handle;

    private TcpStore(nint handle, int port)
    {
        _handle = handle;
        Port = port;
    }

    public int Port { get; }

    internal nint Handle
    {
        get
        {
            ObjectDisposedException.ThrowIf(_handle == 0, this);
            return _handle;
        }
    }

    /// <summary>Serves on a port that the system chooses.</summary>
    /// <param name="host">A name or address of this machine.</param>
    public static TcpStore Serve(string host, TimeSpan timeout)
    {
        TorchError.ThrowIfFailed(NativeMethods.tt_store_serve(host, (long)timeout.TotalMilliseconds, out nint store, out int port));
        return new TcpStore(store, port);
    }

    /// <summary>Connects to one that is served, or fails after the timeout.</summary>
    public static TcpStore Connect(string host, int port, TimeSpan timeout)
    {
        TorchError.ThrowIfFailed(NativeMethods.tt_store_connect(host, port, (long)timeout.TotalMilliseconds, out nint store));
        return new TcpStore(store, port);
    }

    /// <summary>Waits until all ranks have come; the failure names those that have not, or that compute on something else.</summary>
    /// <param name="device">What this rank computes on: "CPU" or "GPU".</param>
    public void Meet(string device, int rank, int worldSize, TimeSpan timeout) =>
        TorchError.ThrowIfFailed(NativeMethods.tt_store_meet(Handle, device, rank, worldSize, (long)timeout.TotalMilliseconds));

    public void Set(string key, ReadOnlySpan<byte> value)
    {
        fixed (byte* bytes = value)
        {
            TorchError.ThrowIfFailed(NativeMethods.tt_store_set(Handle, key, bytes, value.Length));
        }
    }

    /// <summary>Waits for the key as long as the timeout with which the store was opened.</summary>
    /// <param name="value">As long as what was set.</param>
    public void Get(string key, Span<byte> value)
    {
        fixed (byte* bytes = value)
        {
            TorchError.ThrowIfFailed(NativeMethods.tt_store_get(Handle, key, bytes, value.Length));
        }
    }

    public void Dispose()
    {
        if (Interlocked.Exchange(ref _handle, 0) is not 0 and nint handle)
        {
            NativeMethods.tt_store_free(handle);
        }
    }
}
