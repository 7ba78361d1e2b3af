using System.Collections.Immutable;
using System.ComponentModel;
using System.Diagnostics;

namespace Trainer.Worker.Agent;

/// <summary>The CUDA devices of this machine, found without loading CUDA.</summary>
public static class CudaDevices
{
    private const string Driver = "/proc/driver/nvidia/gpus";

    /// <summary>
    /// Names as CUDA_VISIBLE_DEVICES takes them: what that variable lists for this process, else what the driver lists. Empty: none.
    /// </summary>
    public static ImmutableArray<string> Find() => Environment.GetEnvironmentVariable("CUDA_VISIBLE_DEVICES") is { } visible
        ? [.. visible.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).TakeWhile(device => device != "-1")]
        : FromTool() is { Length: > 0 } listed ? listed : FromDriver();

    /// <summary>Lines of <c>nvidia-smi -L</c>: "GPU 0: NVIDIA H200 (UUID: GPU-...)", and below one that is split, its MIG devices.</summary>
    internal static ImmutableArray<string> Parse(string listing)
    {
        string[] names = [.. listing.Split('\n').Select(UuidOf).OfType<string>()];
        string[] parts = [.. names.Where(name => name.StartsWith("MIG-", StringComparison.Ordinal))];
        return [.. parts.Length > 0 ? parts : names];
    }

    private static string? UuidOf(string line)
    {
        const string Mark = "(UUID: ";
        int start = line.IndexOf(Mark, StringComparison.Ordinal);
        int end = line.LastIndexOf(')');
        return start >= 0 && end > start ? line[(start + Mark.Length)..end] : null;
    }

    private static ImmutableArray<string> FromTool()
    {
        try
        {
            using Process tool = Process.Start(new ProcessStartInfo("nvidia-smi", "-L") { RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false })!;
            string listing = tool.StandardOutput.ReadToEnd();
            tool.WaitForExit();
            return tool.ExitCode == 0 ? Parse(listing) : [];
        }
        catch (Win32Exception)
        {
            return [];
        }
    }

    private static ImmutableArray<string> FromDriver()
    {
        try
        {
            return [.. Directory.GetDirectories(Driver).Order(StringComparer.Ordinal)
                .Select(folder => File.ReadLines(Path.Combine(folder, "information")).FirstOrDefault(line => line.StartsWith("GPU UUID:", StringComparison.Ordinal)))
                .OfType<string>()
                .Select(line => line["GPU UUID:".Length..].Trim())];
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }
}
