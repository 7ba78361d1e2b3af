using System.Collections;
using static TorchSharp.torch;

namespace TorchSharp.Utils;

/// <summary>The elements of a CPU tensor in row-major order. A tensor that is not contiguous is read through a copy.</summary>
public sealed unsafe class TensorAccessor<T> : IDisposable, IEnumerable<T> where T : unmanaged
{
    private readonly Tensor _tensor;
    private readonly Tensor? _copy;

    internal TensorAccessor(Tensor tensor)
    {
        if (tensor.dtype != TypeOf<T>())
        {
            throw new ArgumentException($"the tensor holds {tensor.dtype}, not {typeof(T).Name}: {tensor}; convert it with to()");
        }
        _tensor = tensor;
        if (!tensor.is_contiguous())
        {
            _copy = tensor.contiguous();
        }
    }

    public long Count => _tensor.NumberOfElements;

    public T this[params ReadOnlySpan<long> indices]
    {
        get => *Element(indices);
        set => *Element(indices) = value;
    }

    public T[] ToArray() => [.. Elements];

    public void CopyTo(T[] array, int arrayIndex = 0, long tensorIndex = 0) => CopyTo(array.AsSpan(), arrayIndex, tensorIndex);

    public void CopyTo(Span<T> array, int arrayIndex = 0, long tensorIndex = 0) =>
        Elements[checked((int)tensorIndex)..].CopyTo(array[arrayIndex..]);

    public void CopyFrom(T[] array, int arrayIndex = 0, long tensorIndex = 0) =>
        CopyFrom((ReadOnlySpan<T>)array, arrayIndex, tensorIndex);

    /// <summary>Fills from array[arrayIndex] on, until either end. The tensor must be contiguous.</summary>
    public void CopyFrom(ReadOnlySpan<T> array, int arrayIndex = 0, long tensorIndex = 0)
    {
        RequireContiguous();
        Span<T> target = Elements[checked((int)tensorIndex)..];
        ReadOnlySpan<T> source = array[arrayIndex..];
        source[..Math.Min(source.Length, target.Length)].CopyTo(target);
    }

    public IEnumerator<T> GetEnumerator()
    {
        for (long i = 0; i < Count; i++)
        {
            yield return At(i);
        }
    }

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    public void Dispose() => _copy?.Dispose();

    private Span<T> Elements => new((void*)(_copy ?? _tensor).DataPointer, checked((int)Count));

    private T At(long offset) => ((T*)(_copy ?? _tensor).DataPointer)[offset];

    private T* Element(ReadOnlySpan<long> indices)
    {
        long[] shape = _tensor.shape, strides = _tensor.stride();
        if (indices.Length != shape.Length)
        {
            throw new ArgumentException($"{indices.Length} indices for a tensor of {shape.Length} dimensions");
        }
        long offset = 0;
        for (int i = 0; i < shape.Length; i++)
        {
            ArgumentOutOfRangeException.ThrowIfNegative(indices[i], nameof(indices));
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(indices[i], shape[i], nameof(indices));
            offset += indices[i] * strides[i];
        }
        return (T*)_tensor.DataPointer + offset;
    }

    private void RequireContiguous()
    {
        if (_copy is not null)
        {
            throw new InvalidOperationException($"the tensor is not contiguous: {_tensor}");
        }
    }
}
