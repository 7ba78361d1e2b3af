using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using TorchSharp.Native;

namespace TorchSharp.Tests;

/// <summary>The structs and numbers of trainer_torch.h as 64-bit C lays them out.</summary>
public sealed class LayoutTests
{
    [Fact]
    public void Structs_have_the_headers_sizes_and_offsets()
    {
        Assert.Equal(16, Unsafe.SizeOf<NativeValue>());
        Assert.Equal(8, Marshal.OffsetOf<NativeValue>(nameof(NativeValue.Bits)));
        Assert.Equal(40, Unsafe.SizeOf<NativeIndex>());
        Assert.Equal(24, Unsafe.SizeOf<NativeFunctionCallbacks>());
        Assert.Equal(88, Unsafe.SizeOf<NativeFunctionCall>());
        Assert.Equal(64, Marshal.OffsetOf<NativeFunctionCall>(nameof(NativeFunctionCall.InputCount)));
    }

    [Fact]
    public void Kinds_and_dtypes_keep_their_numbers()
    {
        Assert.Equal(
            ["None", "Default", "Tensor", "Int", "Double", "Bool", "Ints", "Tensors", "Text", "Device", "Generator"],
            Enumerable.Range(0, 11).Select(number => ((ValueKind)number).ToString()));
        Assert.Equal(0, (int)torch.ScalarType.Byte);
        Assert.Equal(6, (int)torch.ScalarType.Float32);
        Assert.Equal(11, (int)torch.ScalarType.Bool);
        Assert.Equal(15, (int)torch.ScalarType.BFloat16);
    }
}
