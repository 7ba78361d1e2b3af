using System.Reflection;
using System.Runtime.InteropServices;

namespace Trainer.Worker.Kernels;

/// <summary>
/// Finds libtrainer_kernels: $TRAINER_NATIVE (a file of the library's folder, or the folder, and then nothing else),
/// otherwise beside the application. A missing file, a failed load and a wrong version are three different errors.
/// </summary>
internal static class KernelLibrary
{
    public const string Name = "trainer_kernels";
    private const string FileName = "libtrainer_kernels.so";

    private const string BuildCure =
        "Build it with './trainer' or, in native/, 'cmake --workflow --preset cpu', " +
        "or set TRAINER_NATIVE to the directory that holds it.";

    public static nint Resolve(string name, Assembly assembly, DllImportSearchPath? searchPath) =>
        name == Name ? Load(Candidates(Environment.GetEnvironmentVariable("TRAINER_NATIVE")), TrainerKernels.AbiVersion) : 0;

    internal static IReadOnlyList<string> Candidates(string? chosen)
    {
        if (!string.IsNullOrEmpty(chosen))
        {
            string directory = chosen.EndsWith(".so", StringComparison.Ordinal) ? Path.GetDirectoryName(chosen) ?? "" : chosen;
            return [Path.Combine(directory, FileName)];
        }
        return
        [
            Path.Combine(AppContext.BaseDirectory, FileName),
            Path.Combine(AppContext.BaseDirectory, "runtimes", "linux-x64", "native", FileName),
        ];
    }

    /// <summary>Loads the first path that exists.</summary>
    /// <exception cref="KernelLibraryException">There is none (with every path tried), or it can't be used.</exception>
    internal static nint Load(IReadOnlyList<string> paths, int abiVersion)
    {
        string path = paths.FirstOrDefault(File.Exists) ?? throw new KernelLibraryException(LibraryState.Missing,
            $"{FileName} was not found. Looked at: {string.Join(", ", paths)}. {BuildCure}");
        nint library;
        try
        {
            library = NativeLibrary.Load(path);
        }
        catch (Exception e) when (e is DllNotFoundException or BadImageFormatException)
        {
            throw new KernelLibraryException(LibraryState.Unloadable, $"{path} exists but did not load: {e.Message} {BuildCure}", e);
        }
        RequireVersion(library, path, abiVersion);
        return library;
    }

    private static unsafe void RequireVersion(nint library, string path, int expected)
    {
        var version = (delegate* unmanaged[Cdecl]<int>)NativeLibrary.GetExport(library, nameof(TrainerKernels.tn_abi_version));
        if (version() != expected)
        {
            throw new KernelLibraryException(LibraryState.OtherVersion,
                $"{path} has binary interface {version()}, this program needs {expected}: it was built from another version " +
                $"of the sources. {BuildCure}");
        }
    }
}
