using Trainer.Contracts;
using Trainer.Worker.Attention;
using Trainer.Worker.Kernels;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Attention;

/// <summary>The choice of attention on machines that are made up: it depends on the request and on nothing else.</summary>
public sealed class AttentionSelectorTests
{
    private static readonly KernelFacts s_h200 = new()
    {
        HasCudaEngine = true, Runtime = new Version(13, 0), Driver = new Version(13, 0), Gpu = "NVIDIA H200", Capability = new Version(9, 0), HasImage = true,
    };

    public static TheoryData<string, string> Machines => new()
    {
        { "missing", "the library is missing: libtrainer_kernels.so was not found" },
        { "unloadable", "the library does not load: libcudart.so.13: cannot open shared object file" },
        { "other version", "the library is of another version: it has binary interface 2" },
        { "cpu build", "the library was built without its CUDA engine; build native/ with the preset cuda" },
        { "no driver", "no NVIDIA driver was found: CUDA driver version is insufficient" },
        { "old driver", "the driver runs CUDA 12.2 at most, the library was built with CUDA 13.0; update the driver, or build native/ with the driver's CUDA" },
        { "no device", "no GPU can be used: no CUDA-capable device is detected" },
        { "turing", "Tesla T4 has compute capability 7.5, 8.0 or later is needed" },
        { "no image", "the library holds no kernel image for NVIDIA B200 (compute capability 10.0); build native/ on this machine" },
    };

    [Fact]
    public void A_deterministic_job_on_a_gpu_gets_our_kernels_and_hears_what_determinism_costs() => Assert.Equal(
        "attention: flash (not flash, in any order: training.deterministic asks for the same bits in every run; "
        + "the cost: a backward pass of attention that takes up to a third longer on a GPU)",
        Choose(AttentionKind.Auto, OnGpu()).Explanation);

    [Fact]
    public void Without_determinism_the_backward_pass_adds_in_any_order()
    {
        AttentionChoice choice = Choose(AttentionKind.Auto, OnGpu() with { Deterministic = false });
        Assert.Same(AttentionBackend.FlashInAnyOrder, choice.Backend);
        Assert.Equal("attention: flash, in any order", choice.Explanation);
        Assert.Same(AttentionBackend.FlashInAnyOrder, Choose(AttentionKind.Flash, OnGpu() with { Deterministic = false }).Backend);
    }

    [Theory]
    [MemberData(nameof(Machines))]
    public void What_the_machine_lacks_is_named_and_auto_takes_sdpa_and_says_what_that_costs(string machine, string reason)
    {
        AttentionChoice choice = Choose(AttentionKind.Auto, OnGpu() with { Kernels = Machine(machine) });
        Assert.Same(AttentionBackend.Sdpa, choice.Backend);
        Assert.Contains($"not flash: {reason}", choice.Explanation, StringComparison.Ordinal);
        Assert.EndsWith("the cost: one call per document instead of one for all, and slower kernels)", choice.Explanation, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Machines))]
    public void A_job_that_names_flash_fails_there_instead_of_falling_back(string machine, string reason)
    {
        string message = Assert.Throws<JobInputException>(() => Choose(AttentionKind.Flash, OnGpu() with { Kernels = Machine(machine) })).Message;
        Assert.StartsWith("model.attention: flash can't run here: ", message, StringComparison.Ordinal);
        Assert.Contains(reason, message, StringComparison.Ordinal);
        Assert.EndsWith("set it to auto to take the best that can", message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_float32_job_on_a_gpu_is_told_to_use_bfloat16()
    {
        AttentionRequest request = OnGpu() with { Dtype = ScalarType.Float32 };
        Assert.Contains("dtype Float32: the GPU kernels compute bfloat16; set model.dtype to bfloat16",
            Assert.Throws<JobInputException>(() => Choose(AttentionKind.Flash, request)).Message, StringComparison.Ordinal);
        Assert.Same(AttentionBackend.Sdpa, Choose(AttentionKind.Auto, request with { Deterministic = false }).Backend);
    }

    [Fact]
    public void A_deterministic_float32_job_on_a_gpu_gets_math_and_hears_that_sdpa_has_no_deterministic_backward()
    {
        AttentionRequest request = OnGpu() with { Dtype = ScalarType.Float32 };
        AttentionChoice choice = Choose(AttentionKind.Auto, request);
        Assert.Same(AttentionBackend.Math, choice.Backend);
        Assert.Contains("not sdpa: training.deterministic: its float32 kernels on GPUs have no deterministic backward pass", choice.Explanation, StringComparison.Ordinal);
        Assert.EndsWith("the cost: memory grows with the square of the document length)", choice.Explanation, StringComparison.Ordinal);
        Assert.Contains("training.deterministic", Assert.Throws<JobInputException>(() => Choose(AttentionKind.Sdpa, request)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(60, false)]
    [InlineData(64, true)]
    [InlineData(128, true)]
    [InlineData(136, false)]
    [InlineData(256, false)]
    public void A_head_dim_that_the_gpu_kernels_lack_is_named(int headDim, bool runs)
    {
        AttentionRequest request = OnGpu() with { HeadDim = headDim };
        if (runs)
        {
            Assert.Same(AttentionBackend.Flash, Choose(AttentionKind.Flash, request).Backend);
        }
        else
        {
            Assert.Contains($"head_dim {headDim} (a multiple of 8 up to 128 needed)",
                Assert.Throws<JobInputException>(() => Choose(AttentionKind.Flash, request)).Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_newer_driver_and_a_newer_minor_version_of_cuda_run_the_library()
    {
        foreach (Version driver in (Version[])[new(13, 0), new(13, 2), new(14, 0)])
        {
            AttentionRequest request = OnGpu() with { Kernels = s_h200 with { Runtime = new Version(13, 1), Driver = driver } };
            Assert.Same(AttentionBackend.Flash, Choose(AttentionKind.Flash, request).Backend);
        }
    }

    [Fact]
    public void Where_sdpa_is_refused_too_math_runs_and_every_refusal_is_told()
    {
        AttentionChoice choice = Choose(AttentionKind.Auto, OnGpu() with { Kernels = Machine("turing"), SlidingWindow = true });
        Assert.Same(AttentionBackend.Math, choice.Backend);
        Assert.Contains("not sdpa: sliding window", choice.Explanation, StringComparison.Ordinal);
        AttentionRequest old = OnGpu() with { Kernels = Machine("turing"), Libtorch = new Version(1, 13, 0) };
        Assert.Contains("libtorch 1.13.0 has no scaled_dot_product_attention (2.0 and later have)", Choose(AttentionKind.Auto, old).Explanation, StringComparison.Ordinal);
    }

    [Fact]
    public void On_the_cpu_there_is_one_order_and_the_gpu_does_not_matter()
    {
        AttentionRequest request = OnGpu() with { Device = CPU, Dtype = ScalarType.Float32, HeadDim = 20, Kernels = new KernelFacts() };
        Assert.Equal("attention: flash", Choose(AttentionKind.Auto, request).Explanation);
        Assert.Equal("attention: flash", Choose(AttentionKind.Auto, request with { Deterministic = false }).Explanation);
    }

    [Fact]
    public void This_machines_library_says_what_it_was_built_with()
    {
        KernelFacts facts = KernelFacts.Probe();
        Assert.Equal(LibraryState.Loaded, facts.Library);
        Assert.Null(facts.LibraryProblem);
        Assert.Equal(facts.HasCudaEngine, facts.Runtime.Major >= 12);
        Assert.Equal(facts.Gpu.Length > 0, facts.Capability.Major > 0);
    }

    private static AttentionRequest OnGpu() => new(
        new Device(DeviceType.CUDA, 0), ScalarType.BFloat16, 128, SlidingWindow: false, Deterministic: true, s_h200, new Version(2, 11, 0));

    private static AttentionChoice Choose(AttentionKind kind, AttentionRequest request) => AttentionSelector.Choose(kind, request);

    private static KernelFacts Machine(string what) => what switch
    {
        "missing" => new KernelFacts { Library = LibraryState.Missing, LibraryProblem = "libtrainer_kernels.so was not found" },
        "unloadable" => new KernelFacts { Library = LibraryState.Unloadable, LibraryProblem = "libcudart.so.13: cannot open shared object file" },
        "other version" => new KernelFacts { Library = LibraryState.OtherVersion, LibraryProblem = "it has binary interface 2" },
        "cpu build" => new KernelFacts(),
        "no driver" => s_h200 with { Driver = new Version(0, 0), Gpu = "", GpuProblem = "CUDA driver version is insufficient" },
        "old driver" => s_h200 with { Driver = new Version(12, 2), Gpu = "" },
        "no device" => s_h200 with { Gpu = "", GpuProblem = "no CUDA-capable device is detected" },
        "turing" => s_h200 with { Gpu = "Tesla T4", Capability = new Version(7, 5) },
        "no image" => s_h200 with { Gpu = "NVIDIA B200", Capability = new Version(10, 0), HasImage = false },
        _ => throw new ArgumentOutOfRangeException(nameof(what)),
    };
}
