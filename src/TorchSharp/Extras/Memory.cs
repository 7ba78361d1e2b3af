using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using TorchSharp.Native;
using static TorchSharp.torch;

namespace TorchSharp.Extras;

/// <summary>Tensors over memory that others own, and copies between tensors and memory; lengths are 64-bit.</summary>
public static unsafe class Memory
{
    /// <summary>
    /// A contiguous CPU tensor over unmanaged memory, without a copy. <paramref name="release"/> runs once, on any thread,
    /// when no tensor uses the memory any longer (views and saved tensors included); it must not throw.
    /// </summary>
    public static Tensor FromBlob(nint data, ReadOnlySpan<long> size, ScalarType dtype, Action? release = null)
    {
        nint state = release is null ? 0 : GCHandle.ToIntPtr(GCHandle.Alloc(release));
        fixed (long* sizes = size)
        {
            TorchError.ThrowIfFailed(NativeMethods.tt_tensor_from_blob((void*)data, sizes, size.Length, (int)dtype,
                release is null ? null : &Release, state, out nint tensor));
            return new Tensor(tensor);
        }
    }

    /// <summary>Copies all elements to memory of <see cref="TensorExtensions.ByteCount"/> bytes, in row-major order, from
    /// any device.</summary>
    public static void CopyTo(this Tensor tensor, nint target, long byteCount)
    {
        RequireLength(tensor, byteCount);
        using DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        FromBlob(target, tensor.shape, tensor.dtype).copy_(tensor);
    }

    /// <summary>Fills the tensor, on any device, from memory of <see cref="TensorExtensions.ByteCount"/> bytes in row-major
    /// order.</summary>
    public static void CopyFrom(this Tensor tensor, nint source, long byteCount)
    {
        RequireLength(tensor, byteCount);
        using DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        tensor.copy_(FromBlob(source, tensor.shape, tensor.dtype));
    }

    private static void RequireLength(Tensor tensor, long byteCount)
    {
        if (byteCount != tensor.ByteCount())
        {
            throw new ArgumentException($"{byteCount} bytes for a tensor of {tensor.ByteCount()}: {tensor}");
        }
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static void Release(nint state)
    {
        GCHandle handle = GCHandle.FromIntPtr(state);
        var release = (Action)handle.Target!;
        handle.Free();
        release();
    }
}
