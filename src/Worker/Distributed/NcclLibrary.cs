using System.Runtime.InteropServices;

namespace Trainer.Worker.Distributed;

/// <summary>The NCCL that a libtorch with CUDA brings. Nothing here uses it yet; doctor tells whether it is there.</summary>
public static unsafe class NcclLibrary
{
    private const string Name = "libnccl.so.2";

    /// <summary>Version and place, or null.</summary>
    public static string? Find()
    {
        string? loaded = File.ReadLines("/proc/self/maps").Select(line => line[(line.LastIndexOf(' ') + 1)..])
            .FirstOrDefault(path => Path.GetFileName(path).StartsWith("libnccl.so", StringComparison.Ordinal));
        if (!NativeLibrary.TryLoad(loaded ?? Name, out nint library))
        {
            return null;
        }

        var getVersion = (delegate* unmanaged[Cdecl]<int*, int>)NativeLibrary.GetExport(library, "ncclGetVersion");
        int version = 0;
        return getVersion(&version) == 0
            ? FormattableString.Invariant($"{version / 10000}.{version / 100 % 100}.{version % 100} ({loaded ?? Name})")
            : $"of unknown version ({loaded ?? Name})";
    }
}
