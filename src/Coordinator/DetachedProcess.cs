using System.Diagnostics;
using System.Reflection;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>Starts processes that outlive the one that started them: a session of their own, files instead of pipes.</summary>
public static class DetachedProcess
{
    // Redirects, then becomes the command: same pid. Lets go of what the starter's shell had open, such as a lock.
    private const string Script = """out=$0; err=$1; shift; exec "$@" >>"$out" 2>>"$err" </dev/null 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-""";

    /// <exception cref="System.ComponentModel.Win32Exception">setsid cannot be run.</exception>
    public static ProcessIdentity Start(
        IEnumerable<string> command, string stdout, string stderr, string folder, IReadOnlyDictionary<string, string> environment)
    {
        var start = new ProcessStartInfo("setsid", ["/bin/sh", "-c", Script, stdout, stderr, .. command]) { UseShellExecute = false, WorkingDirectory = folder };
        foreach ((string name, string value) in environment)
        {
            start.Environment[name] = value;
        }
        using Process process = Process.Start(start)!;
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
}
