using Trainer.Worker.Kernels;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Attention;

/// <summary>What a job asks of its attention, and what there is to run it on. Backends decide on nothing else.</summary>
/// <param name="Kernels">Of our library and the GPU; needed where the device is one.</param>
/// <param name="Libtorch">Of the loaded libtorch.</param>
public sealed record AttentionRequest(
    Device Device, ScalarType Dtype, int HeadDim, bool SlidingWindow, bool Deterministic, KernelFacts Kernels, Version Libtorch)
{
    public bool IsOnGpu => Device.type == DeviceType.CUDA;

    /// <summary>On this machine as it is.</summary>
    public static AttentionRequest Here(Device device, ScalarType dtype, int headDim, bool slidingWindow, bool deterministic) =>
        new(device, dtype, headDim, slidingWindow, deterministic, KernelFacts.Probe(), Version.TryParse(loaded_version, out Version? version) ? version : new Version(0, 0));
}
