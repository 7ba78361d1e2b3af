using Trainer.Contracts;
using Trainer.Worker.Kernels;
using Trainer.Worker.Model;
using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Model;

/// <summary>Which device a job gets here, with or without a GPU.</summary>
public sealed class ComputeDeviceTests
{
    [Fact]
    public void Auto_takes_the_gpu_that_libtorch_sees_and_cpu_means_cpu()
    {
        Assert.Equal(cuda.is_available() ? DeviceType.CUDA : DeviceType.CPU, ComputeDevice.Choose(DeviceKind.Auto).type);
        Assert.Equal(CPU, ComputeDevice.Choose(DeviceKind.Cpu));
    }

    [Fact]
    public void A_job_that_names_cuda_gets_it_or_hears_why_not()
    {
        if (cuda.is_available())
        {
            Assert.Equal(new Device(DeviceType.CUDA, 0), ComputeDevice.Choose(DeviceKind.Cuda));
            return;
        }

        string message = Assert.Throws<JobInputException>(() => ComputeDevice.Choose(DeviceKind.Cuda)).Message;
        Assert.StartsWith("model.device: cuda, but ", message, StringComparison.Ordinal);
        Assert.Contains(Cuda.IsBuilt ? "libtorch sees no GPU here" : "a libtorch without CUDA", message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_log_names_the_gpu() => Assert.Equal(
        "cuda:0 (NVIDIA H200)", ComputeDevice.Describe(new Device(DeviceType.CUDA, 0), DeviceKind.Auto, new KernelFacts { Gpu = "NVIDIA H200" }));

    [Fact]
    public void What_needs_cuda_says_so_in_a_build_without_it()
    {
        if (Cuda.IsBuilt)
        {
            Assert.True(KernelFacts.Probe().HasCudaEngine);
            return;
        }

        foreach (Action call in (Action[])[Cuda.Synchronize, Cuda.EmptyCache, () => Cuda.Memory(CUDA), () => Cuda.CurrentStream(CUDA), () => CudaGraph.Capture(() => { })])
        {
            Assert.Contains("built without CUDA", Assert.Throws<TorchException>(call).Message, StringComparison.Ordinal);
        }
    }
}
