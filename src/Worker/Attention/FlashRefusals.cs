using Trainer.Worker.Kernels;
using static TorchSharp.torch;

namespace Trainer.Worker.Attention;

/// <summary>What our own kernels need, one reason a function, from what is wrong with the machine to what is wrong with the job.</summary>
internal static class FlashRefusals
{
    /// <summary>Chips before Ampere have no bfloat16 tensor cores.</summary>
    private static readonly Version s_ampere = new(8, 0);

    public static IReadOnlyList<Func<AttentionRequest, string?>> OnAnyDevice { get; } =
    [
        Library,
        request => request.IsOnGpu ? GpuEngine(request.Kernels) ?? Driver(request.Kernels) ?? Chip(request.Kernels) : null,
        request => request.IsOnGpu ? GpuDtype(request) : CpuDtype(request),
        request => request.IsOnGpu ? GpuHeadDim(request) : CpuHeadDim(request),
    ];

    /// <summary>Of the backward pass whose sums have no fixed order, which only GPUs have.</summary>
    public static IReadOnlyList<Func<AttentionRequest, string?>> InAnyOrder { get; } =
    [
        request => request.Deterministic ? "training.deterministic asks for the same bits in every run" : null,
        .. OnAnyDevice,
    ];

    private static string? Library(AttentionRequest request) => request.Kernels.Library switch
    {
        LibraryState.Loaded => null,
        LibraryState.Missing => $"the library is missing: {request.Kernels.LibraryProblem}",
        LibraryState.Unloadable => $"the library does not load: {request.Kernels.LibraryProblem}",
        _ => $"the library is of another version: {request.Kernels.LibraryProblem}",
    };

    private static string? GpuEngine(KernelFacts facts) => facts.HasCudaEngine
        ? null
        : "the library was built without its CUDA engine; build native/ with the preset cuda";

    private static string? Driver(KernelFacts facts) =>
        facts.Driver.Major == 0 ? $"no NVIDIA driver was found{Words(facts)}"
        : facts.Driver.Major < facts.Runtime.Major ? $"the driver runs CUDA {facts.Driver} at most, the library was built with CUDA {facts.Runtime}; update the driver, or build native/ with the driver's CUDA"
        : facts.Gpu.Length == 0 ? $"no GPU can be used{Words(facts)}"
        : null;

    private static string? Chip(KernelFacts facts) =>
        facts.Capability < s_ampere ? $"{facts.Gpu} has compute capability {facts.Capability}, {s_ampere} or later is needed"
        : !facts.HasImage ? $"the library holds no kernel image for {facts.Gpu} (compute capability {facts.Capability}); build native/ on this machine"
        : null;

    private static string? GpuDtype(AttentionRequest request) => request.Dtype == ScalarType.BFloat16
        ? null
        : $"dtype {request.Dtype}: the GPU kernels compute bfloat16; set model.dtype to bfloat16";

    private static string? CpuDtype(AttentionRequest request) => request.Dtype is ScalarType.Float32 or ScalarType.BFloat16
        ? null
        : $"dtype {request.Dtype} (float32 or bfloat16 needed)";

    private static string? GpuHeadDim(AttentionRequest request) => request.HeadDim is >= 8 and <= 128 && request.HeadDim % 8 == 0
        ? null
        : $"head_dim {request.HeadDim} (a multiple of 8 up to 128 needed)";

    private static string? CpuHeadDim(AttentionRequest request) => request.HeadDim is >= 1 and <= 256 ? null : $"head_dim {request.HeadDim} (at most 256)";

    private static string Words(KernelFacts facts) => facts.GpuProblem is { } problem ? $": {problem}" : "";
}
