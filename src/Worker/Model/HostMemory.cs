using Trainer.Worker.Checkpoints;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>Tensors' bytes as host memory of our own.</summary>
public static class HostMemory
{
    /// <summary>A copy of the tensor's elements in row-major order.</summary>
    public static unsafe NativeBuffer Copy(Func<Tensor> produce)
    {
        using DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        Tensor tensor = produce().cpu().contiguous();
        long length = tensor.NumberOfElements * tensor.ElementSize;
        NativeBuffer buffer = NativeBuffer.Allocate(length);
        Buffer.MemoryCopy((void*)tensor.DataPointer, (void*)buffer.Pointer, length, length);
        return buffer;
    }
}
