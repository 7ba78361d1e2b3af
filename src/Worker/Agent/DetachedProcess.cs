using System.Diagnostics;
using System.Reflection;
using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>Starts processes that outlive the one that started them: a session of their own, files instead of pipes.</summary>
public static class DetachedProcess
{
    // Redirects, then becomes the command: same pid. Lets go of what the starter's shell had open, such as a lock.
    private const string Become = """out=$0; err=$1; shift; exec "$@" >>"$out" 2>>"$err" 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-""";

    private const string Deaf = " </dev/null";

    // What is short of memory or time is taken from the command first, and its death leaves no core file of gigabytes.
    private const string Yield = "ulimit -c 0; { echo 500 >/proc/self/oom_score_adj; renice -n 5 -p $$; } >/dev/null 2>&1; ";

    /// <param name="environment">Variables added to this process's own; null removes one.</param>
    /// <exception cref="System.ComponentModel.Win32Exception">setsid cannot be run.</exception>
    public static ProcessIdentity Start(
        IEnumerable<string> command, string stdout, string stderr, string folder, IReadOnlyDictionary<string, string?> environment)
    {
        using Process process = Start(Become + Deaf, command, stdout, stderr, folder, environment);
        // One that has ended already is known by being gone.
        return ProcessTable.Find(process.Id) ?? new ProcessIdentity { Pid = process.Id, StartTime = 0 };
    }

    /// <summary>Null when no such process lives.</summary>
    public static ProcessIdentity? Find(int pid) => ProcessTable.Find(pid);

    public static bool IsAlive(ProcessIdentity process) => ProcessTable.IsAlive(process);

    /// <summary>The command line of this program with another verb, whether its own host or dotnet runs it.</summary>
    public static IReadOnlyList<string> Self(string verb) => Path.GetFileNameWithoutExtension(Environment.ProcessPath) is "dotnet"
        ? [Environment.ProcessPath!, Assembly.GetEntryAssembly()!.Location, verb]
        : [Environment.ProcessPath!, verb];

    /// <summary>Starts one that is to die before this process does, when memory is short; its end can be waited for.</summary>
    /// <inheritdoc cref="Start(IEnumerable{string}, string, string, string, IReadOnlyDictionary{string, string?})"/>
    internal static Process StartYielding(
        IEnumerable<string> command, string stdout, string stderr, string folder, IReadOnlyDictionary<string, string?> environment) =>
        Start(Yield + Become + Deaf, command, stdout, stderr, folder, environment);

    /// <summary>Starts one that yields too, and that listens: what is written to its standard input reaches it, and that ends with this process.</summary>
    /// <inheritdoc cref="Start(IEnumerable{string}, string, string, string, IReadOnlyDictionary{string, string?})"/>
    internal static Process StartWaiting(IEnumerable<string> command, string folder, IReadOnlyDictionary<string, string?> environment) =>
        Start(Yield + Become, command, "/dev/null", "/dev/null", folder, environment, listens: true);

    private static Process Start(
        string script, IEnumerable<string> command, string stdout, string stderr, string folder, IReadOnlyDictionary<string, string?> environment, bool listens = false)
    {
        var start = new ProcessStartInfo("setsid", ["/bin/sh", "-c", script, stdout, stderr, .. command])
        {
            UseShellExecute = false, WorkingDirectory = folder, RedirectStandardInput = listens,
        };
        foreach ((string name, string? value) in environment)
        {
            start.Environment[name] = value;
        }
        return Process.Start(start)!;
    }
}
