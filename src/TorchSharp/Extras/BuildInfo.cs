using System.Runtime.InteropServices;
using TorchSharp.Native;

namespace TorchSharp;

public static partial class torch
{
    /// <summary>The libtorch whose headers the native library was compiled with, e.g. "1.13.0".</summary>
    public static string built_version => Marshal.PtrToStringUTF8(NativeMethods.tt_built_version()) ?? "";

    /// <summary>The libtorch that is loaded, as its files state it; empty when they do not.</summary>
    public static string loaded_version => Marshal.PtrToStringUTF8(NativeMethods.tt_loaded_version()) ?? "";

    /// <summary>The file of the loaded libtorch_cpu.</summary>
    public static string loaded_path => Marshal.PtrToStringUTF8(NativeMethods.tt_loaded_path()) ?? "";

    /// <summary>Tensors alive in the process.</summary>
    public static long LiveTensors => Tensor.TotalCount;

    /// <summary>Graph nodes of custom functions alive in the process.</summary>
    public static long LiveFunctions => NativeMethods.tt_live_nodes();

    /// <summary>Whether the loaded libtorch has an operator, e.g. "scaled_dot_product_attention".</summary>
    public static bool has_operator(string name) => Aten.Has(name);
}
