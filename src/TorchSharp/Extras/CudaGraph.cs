using TorchSharp.Native;

namespace TorchSharp.Extras;

/// <summary>
/// Operators recorded once and run again as one launch. Nothing recorded may wait for the device, and tensors that it reads keep
/// their place in memory.
/// </summary>
public sealed class CudaGraph : IDisposable
{
    private nint _handle;

    private CudaGraph(nint handle) => _handle = handle;

    /// <summary>Records what the action starts, backward passes included; nothing of it runs yet.</summary>
    public static CudaGraph Capture(Action record)
    {
        TorchError.ThrowIfFailed(NativeMethods.tt_graph_begin(out nint handle));
        var graph = new CudaGraph(handle);
        try
        {
            record();
        }
        catch
        {
            _ = NativeMethods.tt_graph_end(handle);
            graph.Dispose();
            throw;
        }

        if (NativeMethods.tt_graph_end(handle) is not 0 and int status)
        {
            graph.Dispose();
            TorchError.ThrowIfFailed(status);
        }

        return graph;
    }

    public void Replay()
    {
        ObjectDisposedException.ThrowIf(_handle == 0, this);
        TorchError.ThrowIfFailed(NativeMethods.tt_graph_replay(_handle));
    }

    public void Dispose()
    {
        if (Interlocked.Exchange(ref _handle, 0) is not 0 and nint handle)
        {
            NativeMethods.tt_graph_free(handle);
        }
    }
}
