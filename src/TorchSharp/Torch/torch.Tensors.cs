using System.Runtime.InteropServices;

namespace TorchSharp;

/// <summary>Tensors from managed values: copies, with the dtype of the C# type unless one is given.</summary>
public static partial class torch
{
    public static Tensor tensor<T>(T scalar, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) where T : unmanaged =>
        FromSpan([scalar], [], dtype, device, requires_grad);

    public static Tensor tensor<T>(T scalar, Device device, bool requires_grad = false) where T : unmanaged =>
        FromSpan([scalar], [], null, device, requires_grad);

    public static Tensor tensor<T>(T[] rawArray, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) where T : unmanaged =>
        FromSpan<T>(rawArray, [rawArray.Length], dtype, device, requires_grad);

    public static Tensor tensor<T>(T[] rawArray, ReadOnlySpan<long> dimensions, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) where T : unmanaged =>
        FromSpan<T>(rawArray, dimensions, dtype, device, requires_grad);

    public static Tensor tensor<T>(T[] rawArray, long rows, long columns, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) where T : unmanaged =>
        FromSpan<T>(rawArray, [rows, columns], dtype, device, requires_grad);

    public static Tensor tensor<T>(IList<T> rawArray, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) where T : unmanaged =>
        tensor(rawArray.ToArray(), dtype, device, requires_grad);

    public static Tensor tensor<T>(IList<T> rawArray, ReadOnlySpan<long> dimensions, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) where T : unmanaged =>
        tensor(rawArray.ToArray(), dimensions, dtype, device, requires_grad);

    public static Tensor tensor<T>(ReadOnlyMemory<T> rawArray, ReadOnlySpan<long> dimensions, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) where T : unmanaged =>
        FromSpan(rawArray.Span, dimensions, dtype, device, requires_grad);

    public static unsafe Tensor tensor<T>(T[,] rawArray, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) where T : unmanaged
    {
        fixed (T* first = rawArray)
        {
            return FromSpan(new ReadOnlySpan<T>(first, rawArray.Length), [rawArray.GetLength(0), rawArray.GetLength(1)], dtype, device, requires_grad);
        }
    }

    public static unsafe Tensor tensor<T>(T[,,] rawArray, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) where T : unmanaged
    {
        fixed (T* first = rawArray)
        {
            return FromSpan(new ReadOnlySpan<T>(first, rawArray.Length),
                [rawArray.GetLength(0), rawArray.GetLength(1), rawArray.GetLength(2)], dtype, device, requires_grad);
        }
    }

    private static Tensor FromSpan<T>(ReadOnlySpan<T> values, ReadOnlySpan<long> size, ScalarType? dtype, Device? device, bool requires_grad) where T : unmanaged
    {
        long expected = 1;
        foreach (long length in size)
        {
            expected *= length;
        }
        if (expected != values.Length)
        {
            throw new ArgumentException($"{values.Length} values do not fill a tensor of shape [{string.Join(", ", size.ToArray())}]");
        }
        Tensor tensor = empty(size, TypeOf<T>());
        MemoryMarshal.AsBytes(values).CopyTo(tensor.bytes);
        if ((dtype is { } other && other != tensor.dtype) || device is { type: not DeviceType.CPU })
        {
            tensor = tensor.to(dtype ?? tensor.dtype, device ?? CPU, disposeAfter: true);
        }
        return Marked(tensor, requires_grad);
    }
}
