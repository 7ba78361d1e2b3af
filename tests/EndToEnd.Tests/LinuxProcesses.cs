using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace Trainer.EndToEnd.Tests;

/// <summary>Finds processes by a variable in their environment, and sends them signals.</summary>
internal static partial class LinuxProcesses
{
    public const int Interrupt = 2, Kill = 9, Terminate = 15, Continue = 18, Stop = 19;

    /// <summary>Pids of the living, zombies left out.</summary>
    public static int[] WithVariable(string name, string value)
    {
        string entry = $"\0{name}={value}\0";
        return [.. Directory.EnumerateDirectories("/proc")
            .Select(folder => int.TryParse(Path.GetFileName(folder), CultureInfo.InvariantCulture, out int pid) ? pid : 0)
            .Where(pid => pid > 0 && pid != Environment.ProcessId && ("\0" + Read($"/proc/{pid}/environ")).Contains(entry, StringComparison.Ordinal))];
    }

    /// <summary>A variable in the environment of a process; null when it, or the process, is not there.</summary>
    public static string? Variable(int pid, string name) => Read($"/proc/{pid}/environ").Split('\0')
        .FirstOrDefault(entry => entry.StartsWith(name + "=", StringComparison.Ordinal))?[(name.Length + 1)..];

    /// <summary>Empty when the process is gone.</summary>
    public static string CommandLine(int pid) => Read($"/proc/{pid}/cmdline").Replace('\0', ' ');

    /// <summary>The files that a process has mapped.</summary>
    public static string Maps(int pid) => Read($"/proc/{pid}/maps");

    public static void Signal(int pid, int signal) => _ = kill(pid, signal);

    private static string Read(string path)
    {
        try
        {
            return Encoding.UTF8.GetString(File.ReadAllBytes(path));
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    [LibraryImport("libc")]
    private static partial int kill(int pid, int signal);
}
