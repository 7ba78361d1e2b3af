using TorchSharp.Native;

namespace TorchSharp;

public static partial class torch
{
    /// <summary>One position between the brackets of <c>tensor[...]</c>.</summary>
    public readonly struct TensorIndex
    {
        private const long LeftOut = long.MinValue;

        private readonly NativeIndex _index;
        private readonly Tensor? _tensor;

        private TensorIndex(long kind, long start = 0, long stop = 0, long step = 0, Tensor? tensor = null)
        {
            _index = new NativeIndex { Kind = kind, Start = start, Stop = stop, Step = step };
            _tensor = tensor;
        }

        /// <summary>A new dimension of size 1.</summary>
        public static TensorIndex None => new(0);

        /// <summary>A new dimension of size 1.</summary>
        public static TensorIndex Null => new(0);

        /// <summary>All dimensions that the other indices do not name.</summary>
        public static TensorIndex Ellipsis => new(1);

        public static TensorIndex Colon => Slice();

        public static TensorIndex Single(long index) => new(2, index);

        public static TensorIndex Bool(bool value) => new(3, value ? 1 : 0);

        public static TensorIndex Slice(long? start = null, long? stop = null, long? step = null) =>
            new(4, start ?? LeftOut, stop ?? LeftOut, step ?? LeftOut);

        public static TensorIndex Slice(Range range) =>
            Slice(FromEnd(range.Start), range.End is { IsFromEnd: true, Value: 0 } ? null : FromEnd(range.End));

        /// <summary>Rows by number (integer tensor) or by mask (bool tensor).</summary>
        public static TensorIndex Tensor(Tensor tensor) => new(5, tensor: tensor);

        public static implicit operator TensorIndex(long value) => Single(value);
        public static implicit operator TensorIndex(bool value) => Bool(value);
        public static implicit operator TensorIndex(Tensor value) => Tensor(value);
        public static implicit operator TensorIndex(Range range) => Slice(range);
        public static implicit operator TensorIndex(Index index) => Single(FromEnd(index));

        internal NativeIndex ToNative() => _index with { Tensor = _tensor?.Handle ?? 0 };

        private static long FromEnd(Index index) => index.IsFromEnd ? -index.Value : index.Value;
    }
}
