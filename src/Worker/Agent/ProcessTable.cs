using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>What Linux says about processes (/proc), and the end of them.</summary>
internal static partial class ProcessTable
{
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
        string stat;
        try
        {
            stat = File.ReadAllText($"/proc/{pid}/stat");
        }
        catch (IOException)
        {
            return null;
        }
        // "pid (name) state ...": the name may hold anything, so count from the last parenthesis. session is field 6, starttime 22.
        string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return fields[0] is "Z" or "X"
            ? null
            : (new ProcessIdentity { Pid = pid, StartTime = long.Parse(fields[19], CultureInfo.InvariantCulture) }, int.Parse(fields[3], CultureInfo.InvariantCulture));
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
