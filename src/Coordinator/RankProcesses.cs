using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>
/// Rank processes of this machine. A rank lives in a session of its own and writes to files, so that it survives the
/// coordinator; two variables in its environment (inherited by its children) say whose it is.
/// </summary>
public sealed class RankProcesses(TrainerHome home, CoordinatorOptions options, TimeProvider time)
{
    private const string JobVariable = "TRAINER_JOB_DIR";
    private const string AttemptVariable = "TRAINER_ATTEMPT";

    // Redirects, then becomes the rank: same pid, no pipe to the coordinator.
    private const string Script = """exec "$@" >>"$0/stdout.log" 2>>"$0/stderr.log" </dev/null""";

    private static readonly TimeSpan s_deathTakes = TimeSpan.FromSeconds(10);

    public ProcessIdentity Start(JobId job, int attempt)
    {
        JobFiles files = home.Job(job);
        string folder = files.Attempt(attempt).Directory;
        Directory.CreateDirectory(folder);
        var start = new ProcessStartInfo("setsid") { UseShellExecute = false, WorkingDirectory = files.Directory };
        string[] arguments = ["--job-dir", files.Directory, "--attempt", attempt.ToString(CultureInfo.InvariantCulture), "--socket", home.Socket];
        foreach (string argument in (string[])["/bin/sh", "-c", Script, folder, .. options.RankCommand ?? Self(), .. arguments])
        {
            start.ArgumentList.Add(argument);
        }
        start.Environment[JobVariable] = files.Directory;
        start.Environment[AttemptVariable] = attempt.ToString(CultureInfo.InvariantCulture);
        using Process process = Process.Start(start)!;
        // A rank that has ended already is told by its result, or by being gone.
        return ProcessTable.Find(process.Id) ?? new ProcessIdentity { Pid = process.Id, StartTime = 0 };
    }

    public static bool IsAlive(ProcessIdentity process) => ProcessTable.IsAlive(process);

    /// <summary>The first process of an attempt that a coordinator before this one started; null when none lives.</summary>
    public ProcessIdentity? Find(JobId job, int attempt) =>
        Of(job).Where(found => found.Attempt == attempt).Select(found => found.Process).FirstOrDefault();

    /// <summary>Ends every process of the attempts up to <paramref name="upTo"/> and waits until they are gone.</summary>
    /// <exception cref="TimeoutException">One would not die.</exception>
    public async Task KillAsync(JobId job, int upTo)
    {
        long start = time.GetTimestamp();
        while (Of(job).Where(found => found.Attempt <= upTo).Select(found => found.Process).ToArray() is { Length: > 0 } left)
        {
            if (time.GetElapsedTime(start) > s_deathTakes)
            {
                throw new TimeoutException($"process {left[0].Pid} of an ended attempt of {job} does not die; it may hang in a driver");
            }
            foreach (ProcessIdentity process in left)
            {
                ProcessTable.Kill(process);
            }
            await Task.Delay(TimeSpan.FromMilliseconds(20), time);
        }
    }

    private IEnumerable<(ProcessIdentity Process, int Attempt)> Of(JobId job) =>
        ProcessTable.WithVariable(JobVariable, home.Job(job).Directory).Select(found => (found.Process, AttemptOf(found.Environment)));

    private static int AttemptOf(string environment)
    {
        string? entry = environment.Split('\0').FirstOrDefault(entry => entry.StartsWith(AttemptVariable + "=", StringComparison.Ordinal));
        return int.TryParse(entry.AsSpan(entry is null ? 0 : AttemptVariable.Length + 1), CultureInfo.InvariantCulture, out int attempt) ? attempt : 0;
    }

    /// <summary>This executable, as it was started: by its own host, or by dotnet.</summary>
    private static string[] Self() => Path.GetFileNameWithoutExtension(Environment.ProcessPath) is "dotnet"
        ? [Environment.ProcessPath!, Assembly.GetEntryAssembly()!.Location, "rank"]
        : [Environment.ProcessPath!, "rank"];
}
