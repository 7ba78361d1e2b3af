using System.Runtime.InteropServices;

namespace Nccl;

/// <summary>Which NCCL it is: NCCL_LIBRARY (a file), else the one that this process has loaded already, else the system's.</summary>
public static class NcclLibrary
{
    private const string FileName = "libnccl.so.2";

    /// <summary>Version and place.</summary>
    /// <exception cref="DllNotFoundException">There is none.</exception>
    public static unsafe string Describe()
    {
        int version = 0;
        NcclException.ThrowIfFailed("ncclGetVersion", NativeMethods.ncclGetVersion(&version), communicator: 0);
        return FormattableString.Invariant($"{version / 10000}.{version / 100 % 100}.{version % 100} ({Mapped() ?? FileName})");
    }

    internal static nint Load()
    {
        string name = Environment.GetEnvironmentVariable("NCCL_LIBRARY") is { Length: > 0 } chosen ? chosen : Mapped() ?? FileName;
        return NativeLibrary.TryLoad(name, out nint library)
            ? library
            : throw new DllNotFoundException($"NCCL was not found: {name} does not load. A libtorch with CUDA brings it; NCCL_LIBRARY may name the file");
    }

    /// <summary>Of the files that are mapped, so that one process never has two of them.</summary>
    private static string? Mapped() => File.ReadLines("/proc/self/maps").Select(line => line[(line.LastIndexOf(' ') + 1)..])
        .FirstOrDefault(path => Path.GetFileName(path).StartsWith("libnccl.so", StringComparison.Ordinal));
}
