using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    public unsafe partial class Tensor
    {
        public long Dimensions => tt_tensor_dim(Handle);
        public long dim() => Dimensions;
        public long ndim => Dimensions;

        public long NumberOfElements => tt_tensor_numel(Handle);
        public long numel() => NumberOfElements;

        /// <summary>Bytes of one element.</summary>
        public long ElementSize => tt_tensor_element_size(Handle);
        public long element_size() => ElementSize;

        public ScalarType dtype => (ScalarType)tt_tensor_dtype(Handle);
        public Device device => Device.FromPacked(tt_tensor_device(Handle));
        public DeviceType device_type => device.type;
        public int device_index => device.index;
        public bool is_cuda => device.type == DeviceType.CUDA;
        public bool is_cpu() => device.type == DeviceType.CPU;
        public bool is_floating_point() => torch.is_floating_point(dtype);
        public bool is_integral() => torch.is_integral(dtype);
        public bool is_contiguous() => tt_tensor_is_contiguous(Handle) != 0;
        public bool is_pinned() => Native.Aten.Test("is_pinned", this);

        public long[] shape
        {
            get
            {
                var sizes = new long[Dimensions];
                fixed (long* first = sizes)
                {
                    tt_tensor_sizes(Handle, first);
                }
                return sizes;
            }
        }

        public long[] size() => shape;

        public long size(int dim) => At(shape, dim);

        /// <summary>In elements.</summary>
        public long[] stride()
        {
            var strides = new long[Dimensions];
            fixed (long* first = strides)
            {
                tt_tensor_strides(Handle, first);
            }
            return strides;
        }

        public long stride(int dim) => At(stride(), dim);

        public long storage_offset() => tt_tensor_storage_offset(Handle);

        public override string ToString() =>
            IsInvalid ? "[disposed]" : $"[{string.Join("x", shape)}], type = {dtype}, device = {device}";

        private long At(long[] values, int dim)
        {
            int axis = dim < 0 ? dim + values.Length : dim;
            return (uint)axis < (uint)values.Length
                ? values[axis]
                : throw new ArgumentOutOfRangeException(nameof(dim), dim, $"the tensor has {values.Length} dimensions: {this}");
        }
    }
}
