using Trainer.Contracts;
using Trainer.Worker.Agent;
using Trainer.Worker.Kernels;
using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>What a process computes on. A rank sees the one GPU of its slot (CUDA_VISIBLE_DEVICES), which is its cuda:0.</summary>
public static class ComputeDevice
{
    /// <exception cref="JobInputException">The job wants a GPU and there is none to use.</exception>
    public static Device Choose(DeviceKind kind) => (kind, cuda.is_available()) switch
    {
        (DeviceKind.Cpu, _) or (DeviceKind.Auto, false) => CPU,
        (_, true) => new Device(DeviceType.CUDA, 0),
        _ => throw new JobInputException(Cuda.IsBuilt
            ? "model.device: cuda, but libtorch sees no GPU here (trainer doctor shows what there is); run on a GPU slot, or set it to auto"
            : $"model.device: cuda, but native/ was built for a libtorch without CUDA ({loaded_version}); build it with the preset cuda, or set model.device to auto"),
    };

    /// <summary>The device in words; a GPU that the driver lists and libtorch does not see is not passed over in silence.</summary>
    public static string Describe(Device device, DeviceKind asked, KernelFacts facts) =>
        device.type == DeviceType.CUDA ? $"{device} ({facts.Gpu})"
        : asked == DeviceKind.Auto && !CudaDevices.Find().IsEmpty ? "cpu; this slot has an NVIDIA GPU, but libtorch does not see it: trainer doctor says why"
        : "cpu";
}
