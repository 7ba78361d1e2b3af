using TorchSharp.Native;

namespace TorchSharp;

public static partial class torch
{
    /// <summary>Views share memory with this tensor; reshape, contiguous and flatten copy when they must.</summary>
    public partial class Tensor
    {
        public Tensor view(params long[] shape) => Aten.Call("view", this, shape);
        public Tensor view_as(Tensor other) => view(other.shape);
        public Tensor reshape(params long[] shape) => Aten.Call("reshape", this, shape);
        public Tensor flatten(long start_dim = 0, long end_dim = -1) => Aten.Call("flatten.using_ints", this, start_dim, end_dim);
        public Tensor unflatten(long dim, params long[] sizes)
        {
            long axis = dim < 0 ? dim + ndim : dim;
            return reshape([.. shape.AsSpan(0, (int)axis), .. sizes, .. shape.AsSpan((int)axis + 1)]);
        }
        public Tensor transpose(long dim0, long dim1) => Aten.Call("transpose.int", this, dim0, dim1);
        public Tensor transpose_(long dim0, long dim1) => Aten.InPlace("transpose_", this, dim0, dim1);
        public Tensor permute(params long[] permutation) => Aten.Call("permute", this, permutation);
        public Tensor t() => Aten.Call("t", this);
        public Tensor T => Aten.Call("numpy_T", this);
        public Tensor mT => transpose(-2, -1);
        public Tensor unsqueeze(long dim) => Aten.Call("unsqueeze", this, dim);
        public Tensor squeeze(long? dim = null) => dim is { } axis ? Aten.Call("squeeze.dim", this, axis) : Aten.Call("squeeze", this);
        public Tensor expand(params long[] sizes) => Aten.Call("expand", this, sizes);
        public Tensor expand_as(Tensor other) => expand(other.shape);
        public Tensor repeat(params long[] sizes) => Aten.Call("repeat", this, sizes);
        public Tensor repeat_interleave(long repeats, long? dim = null) => Aten.Call("repeat_interleave.self_int", this, repeats, dim);
        public Tensor flip(params long[] dims) => Aten.Call("flip", this, dims);
        public Tensor roll(long shifts, long? dims = null) => Aten.Call("roll", this, new[] { shifts }, dims is { } axis ? new[] { axis } : []);
        public Tensor contiguous() => Aten.Call("contiguous", this);
        public Tensor clone() => Aten.Call("clone", this);
        public Tensor diagonal(long offset = 0, long dim1 = 0, long dim2 = 1) => Aten.Call("diagonal", this, offset, dim1, dim2);

        public Tensor narrow(long dim, long start, long length) => Aten.Call("narrow", this, dim, start, length);
        public Tensor slice(long dim, long start, long finish, long step) => Aten.Call("slice.Tensor", this, dim, start, finish, step);
        public Tensor select(long dim, long index) => Aten.Call("select.int", this, dim, index);
        public Tensor[] split(long size, int dim = 0) => Aten.List("split.Tensor", this, size, dim);
        public Tensor[] split(long[] sizes, long dim = 0) => Aten.List("split_with_sizes", this, sizes, dim);
        public Tensor[] chunk(long chunks, long dim = 0) => Aten.List("chunk", this, chunks, dim);
        public Tensor[] unbind(long dimension = 0) => Aten.List("unbind.int", this, dimension);
    }
}
