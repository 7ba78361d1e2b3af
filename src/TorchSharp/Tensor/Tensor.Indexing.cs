using TorchSharp.Native;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    public unsafe partial class Tensor
    {
        /// <summary>Slices and single numbers give views, tensors and masks copies.</summary>
        public Tensor this[params ReadOnlySpan<TensorIndex> indices]
        {
            get
            {
                NativeIndex* native = stackalloc NativeIndex[indices.Length];
                Write(indices, native);
                Check(tt_tensor_index(Handle, native, indices.Length, out nint result));
                return new Tensor(result);
            }
            set
            {
                NativeIndex* native = stackalloc NativeIndex[indices.Length];
                Write(indices, native);
                Check(tt_tensor_index_put(Handle, native, indices.Length, value.Handle));
            }
        }

        public Tensor index(params ReadOnlySpan<TensorIndex> indices) => this[indices];

        public Tensor index_put_(Tensor value, params ReadOnlySpan<TensorIndex> indices)
        {
            this[indices] = value;
            return this;
        }

        public Tensor index_put_(Scalar value, params ReadOnlySpan<TensorIndex> indices)
        {
            using Tensor filler = full([], value, dtype, device);
            return index_put_(filler, indices);
        }

        public Tensor index_select(long dim, Tensor index) => Aten.Call("index_select", this, dim, index);
        public Tensor index_add(long dim, Tensor index, Tensor source, Scalar alpha) =>
            Aten.Call("index_add", this, dim, index, source, alpha);
        public Tensor index_add_(long dim, Tensor index, Tensor source, Scalar alpha) =>
            Aten.InPlace("index_add_", this, dim, index, source, alpha);
        public Tensor index_copy_(long dim, Tensor index, Tensor source) => Aten.InPlace("index_copy_", this, dim, index, source);
        public Tensor index_fill_(long dim, Tensor index, Scalar value) => Aten.InPlace("index_fill_.int_Scalar", this, dim, index, value);
        public Tensor gather(long dim, Tensor index) => Aten.Call("gather", this, dim, index);
        public Tensor scatter(long dim, Tensor index, Tensor src) => Aten.Call("scatter.src", this, dim, index, src);
        public Tensor scatter_(long dim, Tensor index, Tensor src) => Aten.InPlace("scatter_.src", this, dim, index, src);
        public Tensor scatter_(long dim, Tensor index, Scalar value) => Aten.InPlace("scatter_.value", this, dim, index, value);
        public Tensor scatter_add_(long dim, Tensor index, Tensor src) => Aten.InPlace("scatter_add_", this, dim, index, src);

        private static void Write(ReadOnlySpan<TensorIndex> indices, NativeIndex* native)
        {
            for (int i = 0; i < indices.Length; i++)
            {
                native[i] = indices[i].ToNative();
            }
        }
    }
}
