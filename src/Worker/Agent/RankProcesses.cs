using System.Diagnostics;
using System.Globalization;
using Trainer.Contracts;
using Trainer.Worker.Training;

namespace Trainer.Worker.Agent;

/// <summary>
/// Rank processes of this home. A rank lives in a session of its own and writes to files, so that it survives the agent;
/// variables in its environment (inherited by its children) say which it is.
/// </summary>
internal sealed class RankProcesses(AgentOptions options) : IDisposable
{
    private const string JobVariable = "TRAINER_JOB_DIR";
    private const string AttemptVariable = "TRAINER_ATTEMPT";
    private const string RankVariable = "TRAINER_RANK";
    private const string DeviceVariable = "CUDA_VISIBLE_DEVICES";
    private const string MulticastVariable = "NCCL_NVLS_ENABLE";

    private readonly TrainerHome _home = options.Home;

    /// <summary>None when another program stands in for ours.</summary>
    private readonly Standby? _standby = options.RankCommand is null ? new Standby(device => StartWaiting(options.Home, device)) : null;

    /// <summary>Gets ready for ranks in these slots: a device, or null for a CPU slot.</summary>
    /// <exception cref="System.ComponentModel.Win32Exception">setsid cannot be run.</exception>
    public void Prepare(IEnumerable<string?> slots, TimeSpan now) => _standby?.Keep(slots, now);

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
        var names = new Dictionary<string, string>
        {
            [JobVariable] = files.Directory,
            [AttemptVariable] = Text(attempt),
            [RankVariable] = Text(rank),
        };
        var place = new RankPlace(files.Directory, attempt, _home.AgentSocket, rank, assignment.WorldSize, options.Host, ThreadsPerSlot);
        Process process = _standby?.Become(new StandbyOrder(place, own.StdoutOf(rank), own.StderrOf(rank), names), device)
            ?? DetachedProcess.StartYielding(
                [.. options.RankCommand ?? DetachedProcess.Self("rank"), "--job-dir", place.JobDirectory, "--attempt", Text(attempt), "--socket", place.Socket,
                    "--rank", Text(rank), "--world-size", Text(place.WorldSize), "--host", place.Host, "--threads", Text(place.Threads)],
                own.StdoutOf(rank), own.StderrOf(rank), files.Directory, EnvironmentWith(names, device));
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

    public void Dispose() => _standby?.Dispose();

    /// <summary>Ranks that together want more threads than there are processors take twice as long.</summary>
    private int ThreadsPerSlot => Math.Max(1, Environment.ProcessorCount / options.Slots);

    private FoundRank? Identify(FoundProcess found)
    {
        string folder = found.Variable(JobVariable)!;
        return Path.GetDirectoryName(folder) == _home.Jobs && JobId.TryParse(Path.GetFileName(folder), out JobId job)
            ? new FoundRank(new RankName(job, Number(AttemptVariable), Number(RankVariable)), found.Process, found.Leads, found.Variable(DeviceVariable))
            : null;

        int Number(string variable) => int.TryParse(found.Variable(variable), NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : 0;
    }

    private static Process StartWaiting(TrainerHome home, string? device) => DetachedProcess.StartWaiting(
        DetachedProcess.Self("standby"), home.Directory,
        EnvironmentWith(new[] { JobVariable, AttemptVariable, RankVariable }.ToDictionary(name => name, _ => OwnEnvironment.Room), device));

    /// <param name="device">The one that the process may see.</param>
    private static Dictionary<string, string?> EnvironmentWith(Dictionary<string, string> names, string? device)
    {
        // Ranks speak to the agent only.
        var environment = new Dictionary<string, string?> { ["TRAINER_TOKEN"] = null, ["TRAINER_DATABASE"] = null };
        foreach ((string name, string value) in names)
        {
            environment[name] = value;
        }
        if (device is not null)
        {
            environment[DeviceVariable] = device;
            // Switches that add up for NCCL promise no order: other bits in another run.
            environment[MulticastVariable] = Environment.GetEnvironmentVariable(MulticastVariable) ?? "0";
        }
        return environment;
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
}

/// <summary>A process of a rank.</summary>
/// <param name="Leads">It is the rank itself, not a child.</param>
internal sealed record FoundRank(RankName Name, ProcessIdentity Process, bool Leads, string? Device);
