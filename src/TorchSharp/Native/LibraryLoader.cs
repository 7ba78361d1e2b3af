using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

[assembly: DisableRuntimeMarshalling]

namespace TorchSharp.Native;

/// <summary>
/// Finds libtrainer_torch: $TRAINER_NATIVE (a file or a directory, and then nothing else), otherwise beside the
/// application. A missing file, a failed load and a wrong libtorch are three different errors, each with its cure.
/// </summary>
internal static class LibraryLoader
{
    public const string Library = "trainer_torch";
    private const string FileName = "libtrainer_torch.so";
    private const int AbiVersion = 3;

    private const string BuildCure =
        "Build it with './trainer' or 'cmake -S native -B native/build/cpu -G Ninja && ninja -C native/build/cpu', " +
        "or set TRAINER_NATIVE to the directory that holds it.";

    public static nint Resolve(string name, Assembly assembly, DllImportSearchPath? searchPath) =>
        name == Library ? Load(Candidates()) : 0;

    /// <summary>Loads the first path that exists; throws <see cref="DllNotFoundException"/> with every path tried.</summary>
    internal static nint Load(IReadOnlyList<string> paths)
    {
        string? path = paths.FirstOrDefault(File.Exists);
        if (path is null)
        {
            throw new DllNotFoundException(
                $"{FileName} was not found. Looked at: {string.Join(", ", paths)}. {BuildCure}");
        }
        nint library;
        try
        {
            library = NativeLibrary.Load(path);
        }
        catch (Exception e) when (e is DllNotFoundException or BadImageFormatException)
        {
            throw new DllNotFoundException(
                $"{path} exists but did not load: {LoaderMessage(e, path)}. Most often the libtorch that it was built for " +
                $"is missing or is another version. {BuildCure}", e);
        }
        RequireMatchingVersions(library, path);
        return library;
    }

    private static List<string> Candidates()
    {
        if (Environment.GetEnvironmentVariable("TRAINER_NATIVE") is { Length: > 0 } chosen)
        {
            return [chosen.EndsWith(".so", StringComparison.Ordinal) ? chosen : Path.Combine(chosen, FileName)];
        }
        return
        [
            Path.Combine(AppContext.BaseDirectory, FileName),
            Path.Combine(AppContext.BaseDirectory, "runtimes", "linux-x64", "native", FileName),
        ];
    }

    // The runtime's text ends with one line for each name that it tried; the one with our path is dlopen's own.
    private static string LoaderMessage(Exception e, string path) =>
        e.Message.Split('\n').Select(line => line.Trim()).Where(line => line.Length > 0)
            .LastOrDefault(line => !line.StartsWith(path + ":", StringComparison.Ordinal) || !line.Contains("No such file", StringComparison.Ordinal))
        ?? e.Message;

    private static unsafe void RequireMatchingVersions(nint library, string path)
    {
        var abi = (delegate* unmanaged[Cdecl]<int>)NativeLibrary.GetExport(library, "tt_abi_version");
        if (abi() != AbiVersion)
        {
            throw new DllNotFoundException(
                $"{path} has binary interface {abi()}, this program needs {AbiVersion}: it was built from another version " +
                $"of the sources. {BuildCure}");
        }
        string built = Text(library, "tt_built_version");
        string loaded = Text(library, "tt_loaded_version");
        if (loaded.Length > 0 && MajorMinor(built) != MajorMinor(loaded))
        {
            throw new DllNotFoundException(
                $"{path} was built for libtorch {built}, but the one loaded is {loaded} ({Text(library, "tt_loaded_path")}). " +
                "Build it again for this libtorch (TRAINER_LIBTORCH chooses one), or correct LD_LIBRARY_PATH.");
        }
    }

    private static unsafe string Text(nint library, string export)
    {
        var get = (delegate* unmanaged[Cdecl]<nint>)NativeLibrary.GetExport(library, export);
        return Marshal.PtrToStringUTF8(get()) ?? "";
    }

    private static string MajorMinor(string version) => string.Join('.', version.Split('.').Take(2));
}
