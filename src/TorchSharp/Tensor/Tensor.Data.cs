using TorchSharp.Native;
using TorchSharp.Utils;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    public unsafe partial class Tensor
    {
        /// <summary>Address of the first element, on the tensor's device; 0 for an empty tensor.</summary>
        public nint DataPointer
        {
            get
            {
                Check(tt_tensor_data_ptr(Handle, out nint data));
                return data;
            }
        }

        public nint data_ptr() => DataPointer;

        /// <summary>The elements, converted to nothing: T must be the dtype. CPU only.</summary>
        public TensorAccessor<T> data<T>() where T : unmanaged
        {
            RequireCpu();
            return new TensorAccessor<T>(this);
        }

        /// <summary>The memory of a contiguous CPU tensor of less than 2 GiB.</summary>
        public Span<byte> bytes
        {
            get
            {
                RequireCpu();
                if (!is_contiguous())
                {
                    throw new InvalidOperationException($"the tensor is not contiguous: {this}");
                }
                return new Span<byte>((void*)DataPointer, checked((int)(NumberOfElements * ElementSize)));
            }
            set
            {
                if (value.Length != bytes.Length)
                {
                    throw new ArgumentException($"{value.Length} bytes for a tensor of {bytes.Length}: {this}");
                }
                value.CopyTo(bytes);
            }
        }

        /// <summary>The only element; T must be the dtype. Waits for the device.</summary>
        public T item<T>() where T : unmanaged
        {
            if (dtype != TypeOf<T>())
            {
                throw new ArgumentException($"the tensor holds {dtype}, not {typeof(T).Name}: {this}; use ToSingle() and the like");
            }
            Scalar value = ToScalar();
            return TypeOf<T>() switch
            {
                ScalarType.Bool => (T)(object)value.ToBoolean(),
                ScalarType.Byte => (T)(object)checked((byte)value.ToInt64()),
                ScalarType.Int8 => (T)(object)checked((sbyte)value.ToInt64()),
                ScalarType.Int16 => (T)(object)checked((short)value.ToInt64()),
                ScalarType.Int32 => (T)(object)value.ToInt32(),
                ScalarType.Int64 => (T)(object)value.ToInt64(),
                ScalarType.Float16 => (T)(object)(Half)value.ToDouble(),
                ScalarType.BFloat16 => (T)(object)(BFloat16)value.ToDouble(),
                ScalarType.Float32 => (T)(object)value.ToSingle(),
                _ => (T)(object)value.ToDouble(),
            };
        }

        /// <summary>The only element, converted. Waits for the device.</summary>
        public Scalar ToScalar() => Aten.Number("item", this);
        public float ToSingle() => ToScalar().ToSingle();
        public double ToDouble() => ToScalar().ToDouble();
        public int ToInt32() => ToScalar().ToInt32();
        public long ToInt64() => ToScalar().ToInt64();
        public bool ToBoolean() => ToScalar().ToBoolean();

        private void RequireCpu()
        {
            if (!is_cpu())
            {
                throw new InvalidOperationException($"the tensor is on {device}; copy it with cpu() first");
            }
        }
    }
}
