using System.Runtime.InteropServices;

namespace Trainer.Worker.Kernels;

/// <summary>What is known of libtrainer_kernels and of the GPU before any kernel runs.</summary>
public sealed record KernelFacts
{
    public LibraryState Library { get; init; }

    /// <summary>Why the library can't be used, with the cure.</summary>
    public string? LibraryProblem { get; init; }

    /// <summary>The library was built with its CUDA engine.</summary>
    public bool HasCudaEngine { get; init; }

    /// <summary>The CUDA that the library was built with.</summary>
    public Version Runtime { get; init; } = new(0, 0);

    /// <summary>The newest CUDA that the driver runs; 0.0 without a driver.</summary>
    public Version Driver { get; init; } = new(0, 0);

    /// <summary>Name of the GPU; empty where there is none that can be used.</summary>
    public string Gpu { get; init; } = "";

    public Version Capability { get; init; } = new(0, 0);

    public int Multiprocessors { get; init; }

    public long MemoryBytes { get; init; }

    /// <summary>The library holds code that the GPU runs.</summary>
    public bool HasImage { get; init; }

    /// <summary>CUDA's own words where there is no GPU to use.</summary>
    public string? GpuProblem { get; init; }

    /// <summary>The library's kernels run on this machine's GPU.</summary>
    public bool RunsOnGpu => HasCudaEngine && HasImage;

    /// <summary>Asks the library; one that can't be used is an answer too.</summary>
    public static KernelFacts Probe()
    {
        try
        {
            return Ask();
        }
        catch (KernelLibraryException e)
        {
            return new KernelFacts { Library = e.State, LibraryProblem = e.Message };
        }
    }

    private static unsafe KernelFacts Ask()
    {
        var info = new tn_cuda_info();
        KernelException.ThrowIfFailed(TrainerKernels.tn_cuda_probe(ref info));
        return new KernelFacts
        {
            HasCudaEngine = info.built != 0,
            Runtime = CudaVersion(info.runtime_version),
            Driver = CudaVersion(info.driver_version),
            Gpu = Marshal.PtrToStringUTF8((nint)info.name) ?? "",
            Capability = new Version(info.major, info.minor),
            Multiprocessors = info.multiprocessors,
            MemoryBytes = info.memory_bytes,
            HasImage = info.has_image != 0,
            GpuProblem = Marshal.PtrToStringUTF8((nint)info.problem) is { Length: > 0 } problem ? problem : null,
        };
    }

    /// <summary>13020 is 13.2.</summary>
    private static Version CudaVersion(int number) => new(number / 1000, number % 1000 / 10);
}
