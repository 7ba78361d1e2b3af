using System.Globalization;
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

    private static readonly TimeSpan s_deathTakes = TimeSpan.FromSeconds(10);

    public ProcessIdentity Start(JobId job, int attempt)
    {
        JobFiles files = home.Job(job);
        AttemptFiles own = files.Attempt(attempt);
        Directory.CreateDirectory(own.Directory);
        string number = attempt.ToString(CultureInfo.InvariantCulture);
        return DetachedProcess.Start(
            [.. options.RankCommand ?? DetachedProcess.Self("rank"), "--job-dir", files.Directory, "--attempt", number, "--socket", home.Socket],
            own.Stdout, own.Stderr, files.Directory,
            new Dictionary<string, string> { [JobVariable] = files.Directory, [AttemptVariable] = number });
    }

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
}
