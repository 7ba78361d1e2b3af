using TorchSharp.Native;
using static TorchSharp.torch;

namespace TorchSharp.Extras;

/// <summary>
/// c10d's process group over Gloo: every rank makes the same calls in the same order, one at a time. A call that fails, for
/// example because a rank died, leaves the group of no further use.
/// </summary>
public sealed class GlooGroup : IDisposable
{
    private nint _handle;

    /// <summary>Connects the ranks, which have met in the store.</summary>
    /// <param name="host">The address under which the other ranks reach this one.</param>
    /// <param name="timeout">For this and every later call.</param>
    public GlooGroup(TcpStore store, string host, int rank, int worldSize, TimeSpan timeout) =>
        TorchError.ThrowIfFailed(NativeMethods.tt_group_new(store.Handle, host, rank, worldSize, (long)timeout.TotalMilliseconds, out _handle));

    /// <summary>Whether the native library was built with Gloo.</summary>
    public static bool IsAvailable => NativeMethods.tt_has_gloo() != 0;

    private nint Handle
    {
        get
        {
            ObjectDisposedException.ThrowIf(_handle == 0, this);
            return _handle;
        }
    }

    /// <summary>In place; contiguous float32, float64 or int64 on the CPU.</summary>
    public void AllReduceSum(Tensor tensor) => TorchError.ThrowIfFailed(NativeMethods.tt_group_all_reduce_sum(Handle, tensor.Handle));

    /// <summary>In place: every rank gets the tensor of the root.</summary>
    public void Broadcast(Tensor tensor, int root) => TorchError.ThrowIfFailed(NativeMethods.tt_group_broadcast(Handle, tensor.Handle, root));

    public void Barrier() => TorchError.ThrowIfFailed(NativeMethods.tt_group_barrier(Handle));

    public void Dispose()
    {
        if (Interlocked.Exchange(ref _handle, 0) is not 0 and nint handle)
        {
            NativeMethods.tt_group_free(handle);
        }
    }
}
