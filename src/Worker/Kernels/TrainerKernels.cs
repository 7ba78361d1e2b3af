using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

[assembly: DisableRuntimeMarshalling]
[assembly: InternalsVisibleTo("Worker.Tests")]

namespace Trainer.Worker.Kernels;

/// <summary>
/// trainer_native.h, line by line, under its own names; the header says what each function needs and answers.
/// A status other than Ok is turned into an exception by <see cref="KernelException.ThrowIfFailed"/>.
/// </summary>
internal static partial class TrainerKernels
{
    public const int AbiVersion = 6;
    public const long IgnoreIndex = -100;

    private const string Library = KernelLibrary.Name;

    static TrainerKernels() => NativeLibrary.SetDllImportResolver(typeof(TrainerKernels).Assembly, KernelLibrary.Resolve);

    [LibraryImport(Library)] internal static partial int tn_abi_version();
    [LibraryImport(Library)] internal static partial nint tn_last_error();
    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)] internal static partial uint tn_sizeof(string structName);
    [LibraryImport(Library)] internal static partial KernelStatus tn_set_threads(int threads);

    [LibraryImport(Library)] internal static partial KernelStatus tn_cuda_probe(ref tn_cuda_info info);

    [LibraryImport(Library)] internal static partial KernelStatus tn_attention_forward(in tn_attention_forward_args args, nint stream);
    [LibraryImport(Library)] internal static partial KernelStatus tn_attention_backward(in tn_attention_backward_args args, nint stream);
    [LibraryImport(Library)] internal static partial KernelStatus tn_attention_backward_scratch_bytes(in tn_attention_shape shape, int deterministic, out long bytes);
    [LibraryImport(Library)] internal static partial KernelStatus tn_rms_norm_forward(in tn_rms_norm_forward_args args, nint stream);
    [LibraryImport(Library)] internal static partial KernelStatus tn_rms_norm_backward_scratch_bytes(KernelDevice device, long tokens, long heads, long width, out long bytes);
    [LibraryImport(Library)] internal static partial KernelStatus tn_rms_norm_backward(in tn_rms_norm_backward_args args, nint stream);
    [LibraryImport(Library)] internal static partial KernelStatus tn_rotary(in tn_rotary_args args, nint stream);
    [LibraryImport(Library)] internal static partial KernelStatus tn_swiglu_forward(in tn_swiglu_forward_args args, nint stream);
    [LibraryImport(Library)] internal static partial KernelStatus tn_swiglu_backward(in tn_swiglu_backward_args args, nint stream);
    [LibraryImport(Library)] internal static partial KernelStatus tn_matmul(in tn_matmul_args args, nint stream);
    [LibraryImport(Library)] internal static partial KernelStatus tn_cross_entropy(in tn_cross_entropy_args args, nint stream);
    [LibraryImport(Library)] internal static unsafe partial KernelStatus tn_adamw_each(tn_adamw_args* args, long count, nint stream);

    [LibraryImport(Library)]
    internal static partial KernelStatus tn_sum_of_squares(
        KernelDevice device, KernelDtype dtype, long count, nint x, out double result, nint stream);

    [LibraryImport(Library)]
    internal static partial KernelStatus tn_accumulate(
        KernelDevice device, KernelDtype addendDtype, long count, nint sum, nint addend, nint stream);

    [LibraryImport(Library)] internal static partial KernelStatus tn_dropout(in tn_dropout_args args, nint stream);
}

/// <summary>tn_status: only ever appended to.</summary>
public enum KernelStatus
{
    Ok = 0,
    InvalidArgument = 1,
    Unsupported = 2,
    CudaError = 3,
    OutOfMemory = 4,
    Internal = 5,
}

internal enum KernelDtype
{
    Float32 = 1,
    BFloat16 = 2,
}

internal enum KernelDevice
{
    Cpu = 0,
    Cuda = 1,
}
