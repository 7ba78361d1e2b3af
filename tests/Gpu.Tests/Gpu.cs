using Trainer.Worker.Model;
using Trainer.Contracts;
using TorchSharp;
using static TorchSharp.torch;

[assembly: CollectionBehavior(DisableTestParallelization = true)]

namespace Gpu.Tests;

/// <summary>The GPU that all tests share. There is no skip: without one they fail.</summary>
internal static class Gpu
{
    public static Device Device { get; } = ComputeDevice.Choose(DeviceKind.Cuda);

    /// <summary>A file of the checkout or bundle, which lies above the program.</summary>
    public static string File(params string[] parts)
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (Path.Combine([folder.FullName, .. parts]) is var path && Path.Exists(path))
            {
                return path;
            }
        }

        throw new FileNotFoundException($"{Path.Combine(parts)} is not above {AppContext.BaseDirectory}");
    }

    public static byte[] Bits(Tensor tensor)
    {
        using DisposeScope scope = NewDisposeScope();
        return tensor.detach().cpu().contiguous().bytes.ToArray();
    }
}
