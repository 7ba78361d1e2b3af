using System.Diagnostics;
using System.Globalization;
using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>
/// Rank processes of this home. A rank lives in a session of its own and writes to files, so that it survives the agent;
/// variables in its environment (inherited by its children) say which it is.
/// </summary>
internal sealed class RankProcesses(AgentOptions options)
{
    private const string JobVariable = "TRAINER_JOB_DIR";
    private const string AttemptVariable = "TRAINER_ATTEMPT";
    private const string RankVariable = "TRAINER_RANK";
    private const string DeviceVariable = "CUDA_VISIBLE_DEVICES";

    private readonly TrainerHome _home = options.Home;

    /// <summary>Starts a rank for the first and only time.</summary>
    /// <param name="device">The one that it may see; null on a CPU slot.</param>
    /// <exception cref="System.ComponentModel.Win32Exception">setsid cannot be run.</exception>
    /// <exception cref="IOException">Its files cannot be written.</exception>
    public Process Start(RankAssignment assignment, string? device)
    {
        (JobId job, int attempt, int rank) = assignment.Name;
        JobFiles files = _home.Job(job);
        AttemptFiles own = files.Attempt(attempt);
        Directory.CreateDirectory(own.Directory);
        if (assignment.Config is { } config)
        {
            string partial = $"{files.Config}.{rank}";
            File.WriteAllText(partial, config);
            File.Move(partial, files.Config, overwrite: true);
        }
        File.WriteAllBytes(own.StartedOf(rank), []);
        var environment = new Dictionary<string, string?>
        {
            [JobVariable] = files.Directory,
            [AttemptVariable] = Text(attempt),
            [RankVariable] = Text(rank),
            // Ranks speak to the agent only.
            ["TRAINER_TOKEN"] = null,
            ["TRAINER_DATABASE"] = null,
        };
        if (device is not null)
        {
            environment[DeviceVariable] = device;
        }
        Process process = DetachedProcess.StartYielding(
            [.. options.RankCommand ?? DetachedProcess.Self("rank"), "--job-dir", files.Directory, "--attempt", Text(attempt), "--socket", _home.AgentSocket,
                "--rank", Text(rank), "--world-size", Text(assignment.WorldSize), "--host", options.Host],
            own.StdoutOf(rank), own.StderrOf(rank), files.Directory, environment);
        IdentityFile.Write(own.StartedOf(rank), ProcessTable.Find(process.Id) ?? new ProcessIdentity { Pid = process.Id, StartTime = 0 });
        return process;
    }

    /// <summary>The process in which an agent, this one or one before, has started it; null when none has.</summary>
    public ProcessIdentity? EverStarted(RankName name)
    {
        string path = _home.Job(name.Job).Attempt(name.Attempt).StartedOf(name.Rank);
        // An agent that was killed between intent and deed has left an empty file.
        return File.Exists(path) ? IdentityFile.Read(path) ?? new ProcessIdentity { Pid = 0, StartTime = 0 } : null;
    }

    /// <summary>The newest attempt of a job that left files here; 0: none.</summary>
    public int NewestAttempt(JobId job)
    {
        string folder = _home.Job(job).Directory;
        return !Directory.Exists(folder) ? 0 : Directory.EnumerateDirectories(folder, "attempt-*")
            .Select(path => int.TryParse(Path.GetFileName(path).AsSpan("attempt-".Length), NumberStyles.None, CultureInfo.InvariantCulture, out int attempt) ? attempt : 0)
            .DefaultIfEmpty().Max();
    }

    /// <summary>Every process of every rank of this home, children included; a rank itself leads its session.</summary>
    public IReadOnlyList<FoundRank> Find() => [.. ProcessTable.WithVariable(JobVariable).Select(Identify).OfType<FoundRank>()];

    private FoundRank? Identify(FoundProcess found)
    {
        string folder = found.Variable(JobVariable)!;
        return Path.GetDirectoryName(folder) == _home.Jobs && JobId.TryParse(Path.GetFileName(folder), out JobId job)
            ? new FoundRank(new RankName(job, Number(AttemptVariable), Number(RankVariable)), found.Process, found.Leads, found.Variable(DeviceVariable))
            : null;

        int Number(string variable) => int.TryParse(found.Variable(variable), NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : 0;
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
}

/// <summary>A process of a rank.</summary>
/// <param name="Leads">It is the rank itself, not a child.</param>
internal sealed record FoundRank(RankName Name, ProcessIdentity Process, bool Leads, string? Device);
