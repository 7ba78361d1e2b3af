using TorchSharp.Native;

namespace TorchSharp.Extras;

/// <summary>c10d's TCP store: where the ranks of a group find each other. The one that serves it disposes it last.</summary>
public sealed class TcpStore : IDisposable
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

    public void Dispose()
    {
        if (Interlocked.Exchange(ref _handle, 0) is not 0 and nint handle)
        {
            NativeMethods.tt_store_free(handle);
        }
    }
}
