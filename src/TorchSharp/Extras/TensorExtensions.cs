using TorchSharp.Native;
using static TorchSharp.torch;

namespace TorchSharp.Extras;

public static class TensorExtensions
{
    /// <summary>Whether both have one shape and equal elements; NaN equals nothing.</summary>
    public static bool SameAs(this Tensor tensor, Tensor other) => Aten.Test("equal", tensor, other);

    /// <summary>Bytes of all elements.</summary>
    public static long ByteCount(this Tensor tensor) => tensor.NumberOfElements * tensor.ElementSize;

    /// <summary>Counts in-place changes.</summary>
    public static long Version(this Tensor tensor) => NativeMethods.tt_tensor_version(tensor.Handle);

    /// <summary>Counts a change that was made through the pointer.</summary>
    public static void BumpVersion(this Tensor tensor) => NativeMethods.tt_tensor_bump_version(tensor.Handle);

    /// <summary>Makes the tensor share the data of another one and keeps its own autograd state.</summary>
    public static void SetData(this Tensor tensor, Tensor source) =>
        TorchError.ThrowIfFailed(NativeMethods.tt_tensor_set_data(tensor.Handle, source.Handle));
}
