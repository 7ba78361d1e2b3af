using System.Runtime.CompilerServices;
using Trainer.Worker.Kernels;

namespace Trainer.Worker.Tests.Kernels;

/// <summary>The C boundary itself: layouts, refusals, and how the library is found.</summary>
public sealed class KernelInterfaceTests : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("kernels-");

    public void Dispose() => _directory.Delete(recursive: true);

    [Fact]
    public void Structs_have_one_size_on_both_sides()
    {
        Same<tn_tensor>();
        Same<tn_cuda_info>();
        Same<tn_attention_shape>();
        Same<tn_attention_forward_args>();
        Same<tn_attention_backward_args>();
        Same<tn_rms_norm_forward_args>();
        Same<tn_rms_norm_backward_args>();
        Same<tn_rotary_args>();
        Same<tn_swiglu_forward_args>();
        Same<tn_swiglu_backward_args>();
        Same<tn_matmul_args>();
        Same<tn_cross_entropy_args>();
        Same<tn_adamw_args>();
        Same<tn_dropout_args>();

        static void Same<T>() => Assert.Equal((typeof(T).Name, TrainerKernels.tn_sizeof(typeof(T).Name)), (typeof(T).Name, (uint)Unsafe.SizeOf<T>()));
    }

    [Fact]
    public void Statuses_never_change_their_numbers() => Assert.Equal(
        ["Ok=0", "InvalidArgument=1", "Unsupported=2", "CudaError=3", "OutOfMemory=4", "Internal=5"],
        Enum.GetValues<KernelStatus>().Select(status => $"{status}={(int)status}"));

    [Fact]
    public void A_struct_of_another_size_is_refused()
    {
        var args = new tn_dropout_args { dtype = KernelDtype.Float32, struct_size = 12 };
        var e = Assert.Throws<KernelException>(() => KernelException.ThrowIfFailed(TrainerKernels.tn_dropout(args, 0)));
        Assert.Equal((KernelStatus.InvalidArgument, "tn_dropout"), (e.Status, e.Call));
        Assert.StartsWith("struct_size: must be 56, got 12", e.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Null_pointers_and_negative_counts_are_refused_by_name()
    {
        var args = new tn_dropout_args { dtype = KernelDtype.Float32, count = 4 };
        Refused("x", args);
        args.count = -1;
        Refused("count", args);
        args.dtype = 0;
        Refused("dtype", args);

        static void Refused(string argument, tn_dropout_args args) => Assert.StartsWith(argument + ":",
            Assert.Throws<KernelException>(() => KernelException.ThrowIfFailed(TrainerKernels.tn_dropout(args, 0))).Reason,
            StringComparison.Ordinal);
    }

    [Fact]
    public void A_device_without_engine_is_unsupported()
    {
        var args = new tn_dropout_args { dtype = KernelDtype.Float32, device = KernelDevice.Cuda };
        var e = Assert.Throws<KernelException>(() => KernelException.ThrowIfFailed(TrainerKernels.tn_dropout(args, 0)));
        Assert.Equal(KernelStatus.Unsupported, e.Status);
    }

    [Fact]
    public void A_missing_library_lists_every_path_and_the_cure()
    {
        string first = Path.Combine(_directory.FullName, "a.so"), second = Path.Combine(_directory.FullName, "b.so");
        var e = Assert.Throws<KernelLibraryException>(() => KernelLibrary.Load([first, second], 1));
        string message = e.Message;
        Assert.Equal(LibraryState.Missing, e.State);
        Assert.Contains(first, message, StringComparison.Ordinal);
        Assert.Contains(second, message, StringComparison.Ordinal);
        Assert.Contains("TRAINER_NATIVE", message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_that_does_not_load_is_told_apart_from_a_missing_one()
    {
        string path = Path.Combine(_directory.FullName, "libtrainer_kernels.so");
        File.WriteAllText(path, "not a library");
        var e = Assert.Throws<KernelLibraryException>(() => KernelLibrary.Load([path], 1));
        Assert.Contains("exists but did not load", e.Message, StringComparison.Ordinal);
        Assert.Equal(LibraryState.Unloadable, e.State);
    }

    [Fact]
    public void A_library_of_another_version_is_refused()
    {
        int other = TrainerKernels.AbiVersion + 1;
        var e = Assert.Throws<KernelLibraryException>(() => KernelLibrary.Load(KernelLibrary.Candidates(null), other));
        Assert.Contains($"has binary interface {TrainerKernels.AbiVersion}, this program needs {other}", e.Message, StringComparison.Ordinal);
        Assert.Equal(LibraryState.OtherVersion, e.State);
    }

    [Fact]
    public void TRAINER_NATIVE_names_the_only_place_to_look()
    {
        Assert.Equal(["/native/libtrainer_kernels.so"], KernelLibrary.Candidates("/native"));
        Assert.Equal(["/native/libtrainer_kernels.so"], KernelLibrary.Candidates("/native/libtrainer_torch.so"));
        Assert.Equal(2, KernelLibrary.Candidates("").Count);
    }
}
