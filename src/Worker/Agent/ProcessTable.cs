using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>What Linux says about processes (/proc), and the end of them.</summary>
internal static partial class ProcessTable
{
    /// <summary>In which Linux counts processor time.</summary>
    public const double TicksPerSecond = 100;

    private const int SigKill = 9;

    /// <summary>Null when there is no such process, or only its zombie.</summary>
    public static ProcessIdentity? Find(int pid) => Look(pid)?.Process;

    public static bool IsAlive(ProcessIdentity process) => Find(process.Pid) == process;

    /// <summary>Every process whose environment holds this variable, oldest first.</summary>
    public static IEnumerable<FoundProcess> WithVariable(string name)
    {
        string entry = $"\0{name}=";
        return Directory.EnumerateDirectories("/proc")
            .Select(folder => int.TryParse(Path.GetFileName(folder), CultureInfo.InvariantCulture, out int pid) ? pid : 0)
            .Where(pid => pid > 0 && pid != Environment.ProcessId)
            .Select(pid => (Pid: pid, Environment: EnvironmentOf(pid)))
            .Where(found => found.Environment.Contains(entry, StringComparison.Ordinal))
            .Select(found => Look(found.Pid) is { } look ? new FoundProcess(look.Process, look.Session == found.Pid, found.Environment) : null)
            .OfType<FoundProcess>()
            .OrderBy(found => found.Process.StartTime).ThenBy(found => found.Process.Pid);
    }

    /// <summary>Processor time and memory of a process; null when it is gone.</summary>
    public static (long CpuTicks, long ResidentBytes)? Use(ProcessIdentity process)
    {
        // utime and stime are fields 14 and 15, rss (in pages) is 24.
        return StatOf(process.Pid) is { } fields && long.Parse(fields[19], CultureInfo.InvariantCulture) == process.StartTime
            ? (long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture),
                long.Parse(fields[21], CultureInfo.InvariantCulture) * Environment.SystemPageSize)
            : null;
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

    private static (ProcessIdentity Process, int Session)? Look(int pid)
    {
        // session is field 6, starttime 22.
        return StatOf(pid) is not { } fields || fields[0] is "Z" or "X"
            ? null
            : (new ProcessIdentity { Pid = pid, StartTime = long.Parse(fields[19], CultureInfo.InvariantCulture) }, int.Parse(fields[3], CultureInfo.InvariantCulture));
    }

    /// <summary>From field 3 on; null when there is no such process.</summary>
    private static string[]? StatOf(int pid)
    {
        try
        {
            string stat = File.ReadAllText($"/proc/{pid}/stat");
            // "pid (name) state ...": the name may hold anything, so count from the last parenthesis.
            return stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        }
        catch (IOException)
        {
            return null;
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

/// <param name="Leads">It leads its session.</param>
/// <param name="Environment">As it was at its start: NUL before, between and after.</param>
internal sealed record FoundProcess(ProcessIdentity Process, bool Leads, string Environment)
{
    public string? Variable(string name)
    {
        string entry = $"\0{name}=";
        int start = Environment.IndexOf(entry, StringComparison.Ordinal);
        return start < 0 ? null : Environment[(start + entry.Length)..Environment.IndexOf('\0', start + 1)];
    }
}
