using TorchSharp.Native;
using static TorchSharp.torch;

namespace TorchSharp.Extras;

/// <summary>Streams, memory and attention kernels of libtorch on NVIDIA GPUs. Fails with the cure where the library has no CUDA.</summary>
public static class Cuda
{
    /// <summary>Whether the native library was built with CUDA; that a GPU is there is another matter.</summary>
    public static bool IsBuilt => NativeMethods.tt_has_cuda() != 0;

    /// <summary>The cudaStream_t on which this thread's operators run.</summary>
    public static nint CurrentStream(Device device)
    {
        TorchError.ThrowIfFailed(NativeMethods.tt_cuda_current_stream(device.Packed, out nint stream));
        return stream;
    }

    /// <summary>Waits for everything on the current device.</summary>
    public static void Synchronize() => TorchError.ThrowIfFailed(NativeMethods.tt_cuda_synchronize());

    public static CudaMemory Memory(Device device)
    {
        TorchError.ThrowIfFailed(NativeMethods.tt_cuda_memory(device.Packed, out long allocated, out long peak, out long reserved));
        return new CudaMemory(allocated, peak, reserved);
    }

    /// <summary>From now on the peak counts anew.</summary>
    public static void ResetPeak(Device device) => TorchError.ThrowIfFailed(NativeMethods.tt_cuda_reset_peak(device.Packed));

    /// <summary>Gives memory that no tensor uses back to the device.</summary>
    public static void EmptyCache() => TorchError.ThrowIfFailed(NativeMethods.tt_cuda_empty_cache());

    /// <summary>Which kernels scaled_dot_product_attention may take from now on.</summary>
    public static void AllowAttention(bool flash = false, bool memoryEfficient = false, bool cudnn = false, bool math = false) =>
        TorchError.ThrowIfFailed(NativeMethods.tt_set_attention_backends(flash ? 1 : 0, memoryEfficient ? 1 : 0, cudnn ? 1 : 0, math ? 1 : 0));
}

/// <param name="Allocated">Bytes that tensors hold now.</param>
/// <param name="Peak">The most that they held since the last reset.</param>
/// <param name="Reserved">Bytes that libtorch holds of the device.</param>
public sealed record CudaMemory(long Allocated, long Peak, long Reserved);
