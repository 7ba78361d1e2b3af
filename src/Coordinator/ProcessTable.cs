using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>What Linux says about processes (/proc), and the end of them.</summary>
internal static partial class ProcessTable
{
    private const int SigKill = 9;

    /// <summary>Null when there is no such process, or only its zombie.</summary>
    public static ProcessIdentity? Find(int pid)
    {
        string stat;
        try
        {
            stat = File.ReadAllText($"/proc/{pid}/stat");
        }
        catch (IOException)
        {
            return null;
        }
        // "pid (name) state ...": the name may hold anything, so count from the last parenthesis. starttime is field 22.
        string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return fields[0] is "Z" or "X" ? null : new ProcessIdentity { Pid = pid, StartTime = long.Parse(fields[19], CultureInfo.InvariantCulture) };
    }

    public static bool IsAlive(ProcessIdentity process) => Find(process.Pid) == process;

    /// <summary>Every process whose environment holds this variable, oldest first.</summary>
    public static IEnumerable<(ProcessIdentity Process, string Environment)> WithVariable(string name, string value)
    {
        string entry = $"\0{name}={value}\0";
        return Directory.EnumerateDirectories("/proc")
            .Select(folder => int.TryParse(Path.GetFileName(folder), CultureInfo.InvariantCulture, out int pid) ? pid : 0)
            .Where(pid => pid > 0 && pid != Environment.ProcessId)
            .Select(pid => (Process: Find(pid), Environment: EnvironmentOf(pid)))
            .Where(found => found.Process is not null && found.Environment.Contains(entry, StringComparison.Ordinal))
            .Select(found => (found.Process!, found.Environment))
            .OrderBy(found => found.Item1.StartTime).ThenBy(found => found.Item1.Pid);
    }

    /// <summary>SIGKILL to the process and, when it leads one, to its group.</summary>
    public static void Kill(ProcessIdentity process)
    {
        if (IsAlive(process))
        {
            _ = kill(-process.Pid, SigKill);
            _ = kill(process.Pid, SigKill);
        }
    }

    /// <summary>NUL before, between and after; empty when it may not be read.</summary>
    private static string EnvironmentOf(int pid)
    {
        try
        {
            return "\0" + Encoding.UTF8.GetString(File.ReadAllBytes($"/proc/{pid}/environ"));
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    [LibraryImport("libc")]
    private static partial int kill(int pid, int signal);
}
