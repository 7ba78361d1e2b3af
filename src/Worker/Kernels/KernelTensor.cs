using System.Runtime.CompilerServices;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

/// <summary>Tensors as kernels take them: what is refused is refused here by the argument's name, before any work.</summary>
internal static class KernelTensor
{
    public static KernelDevice KernelDevice(this Tensor tensor, [CallerArgumentExpression(nameof(tensor))] string name = "") =>
        tensor.device_type switch
        {
            TorchSharp.DeviceType.CPU => Kernels.KernelDevice.Cpu,
            TorchSharp.DeviceType.CUDA => Kernels.KernelDevice.Cuda,
            _ => throw new ArgumentException($"{name} must be on the CPU or a CUDA device: {tensor}", name),
        };

    /// <summary>Where libtorch's own operators on this tensor run now; 0 on the CPU.</summary>
    public static nint KernelStream(this Tensor tensor) =>
        tensor.device_type == TorchSharp.DeviceType.CUDA ? TorchSharp.Extras.Cuda.CurrentStream(tensor.device) : 0;

    public static KernelDtype KernelDtype(this Tensor tensor, [CallerArgumentExpression(nameof(tensor))] string name = "") =>
        tensor.dtype switch
        {
            ScalarType.Float32 => Kernels.KernelDtype.Float32,
            ScalarType.BFloat16 => Kernels.KernelDtype.BFloat16,
            _ => throw new ArgumentException($"{name} must be float32 or bfloat16: {tensor}", name),
        };

    public static void RequireDtype(this Tensor tensor, ScalarType dtype, [CallerArgumentExpression(nameof(tensor))] string name = "")
    {
        if (tensor.dtype != dtype)
        {
            throw new ArgumentException($"{name} must be {dtype}: {tensor}", name);
        }
    }

    /// <summary>A negative size stands for any.</summary>
    public static void RequireShape(this Tensor tensor, ReadOnlySpan<long> shape, [CallerArgumentExpression(nameof(tensor))] string name = "")
    {
        long[] actual = tensor.shape;
        bool same = actual.Length == shape.Length;
        for (int i = 0; same && i < actual.Length; i++)
        {
            same = shape[i] < 0 || actual[i] == shape[i];
        }
        if (!same)
        {
            IEnumerable<string> sizes = shape.ToArray().Select(size => size < 0 ? "any" : $"{size}");
            throw new ArgumentException($"{name} must have shape [{string.Join(", ", sizes)}]: {tensor}", name);
        }
    }

    public static void RequireContiguous(this Tensor tensor, [CallerArgumentExpression(nameof(tensor))] string name = "")
    {
        if (!tensor.is_contiguous())
        {
            throw new ArgumentException($"{name} must be contiguous: {tensor}", name);
        }
    }

    /// <summary>The elements of a contiguous tensor.</summary>
    public static nint Elements(this Tensor tensor, [CallerArgumentExpression(nameof(tensor))] string name = "")
    {
        tensor.RequireContiguous(name);
        return tensor.DataPointer;
    }

    /// <summary>A tensor [T, heads, width] or [T, width] where it lies; its last axis must be contiguous.</summary>
    public static tn_tensor View(this Tensor tensor, [CallerArgumentExpression(nameof(tensor))] string name = "")
    {
        if (!tensor.HasContiguousRows())
        {
            throw new ArgumentException(
                $"{name} must have a contiguous last dimension, its strides are [{string.Join(", ", tensor.stride())}]: {tensor}", name);
        }
        long[] strides = tensor.stride();
        return new tn_tensor { data = tensor.DataPointer, token_stride = strides[0], head_stride = strides.Length == 3 ? strides[1] : 0 };
    }

    /// <summary>Itself where kernels can read it in place, otherwise a contiguous copy: gradients come in any layout, a
    /// broadcast one above all.</summary>
    public static Tensor AsRows(this Tensor tensor) =>
        tensor.HasContiguousRows() && DoesNotOverlap(tensor) ? tensor : tensor.contiguous();

    /// <summary>[..., D] as [T, D] or [T, N, D] without a copy where strides allow it.</summary>
    public static Tensor Flattened(this Tensor tensor)
    {
        Tensor rows = tensor.Dimensions is 2 or 3 ? tensor : tensor.reshape(-1, tensor.size(-1));
        return rows.AsRows();
    }

    private static bool HasContiguousRows(this Tensor tensor) => tensor.size(-1) <= 1 || tensor.stride(-1) == 1;

    private static bool DoesNotOverlap(Tensor tensor)
    {
        long[] shape = tensor.shape, strides = tensor.stride();
        for (int i = 0; i + 1 < shape.Length; i++)
        {
            if (shape[i] > 1 && strides[i] < shape[^1])
            {
                return false;
            }
        }
        return true;
    }
}
