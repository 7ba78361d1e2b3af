using Trainer.Contracts;

namespace Trainer.EndToEnd.Tests;

/// <summary>The ranks of one attempt as processes, with an agent to report to.</summary>
internal sealed class RankGroup : IAsyncDisposable
{
    private readonly List<TrainerProgram> _ranks = [];
    private readonly AttemptFiles _files;

    private RankGroup(AttemptFiles files, StubAgent agent)
    {
        _files = files;
        Agent = agent;
    }

    public StubAgent Agent { get; }

    /// <summary>Creates the tiny job in a folder of its own, as a coordinator would.</summary>
    public static JobFiles CreateJob(Workplace place, params string[] sets)
    {
        var files = new JobFiles(place.PathOf("jobs/tiny-rank"));
        Directory.CreateDirectory(files.Directory);
        File.WriteAllText(files.Config, JobConfigJson.Write(JobConfigFile.Load(place.PathOf(TinyJob.File), sets)));
        return files;
    }

    public static async Task<RankGroup> StartAsync(
        Workplace place, JobFiles job, int attempt, int worldSize, IReadOnlyDictionary<string, string>? variables = null)
    {
        string socket = place.PathOf($"agent-{attempt}.sock");
        var group = new RankGroup(job.Attempt(attempt), await StubAgent.StartAsync(socket, attempt));
        var environment = new Dictionary<string, string>(place.Environment.Concat(variables ?? new Dictionary<string, string>()));
        for (int rank = 0; rank < worldSize; rank++)
        {
            group._ranks.Add(TrainerProgram.Start(place.Folder, environment,
                "rank", "--job-dir", job.Directory, "--attempt", $"{attempt}", "--socket", socket, "--rank", $"{rank}", "--world-size", $"{worldSize}"));
        }

        return group;
    }

    public int Pid(int rank) => _ranks[rank].Pid;

    public RankResult? Result(int rank) => RankResult.Read(_files.ResultOf(rank));

    public Task<Outcome> WaitAsync(int rank) => _ranks[rank].WaitAsync();

    /// <summary>Waits for all ranks, which must end well.</summary>
    /// <returns>What each printed.</returns>
    public async Task<string[]> SucceedAsync()
    {
        Outcome[] outcomes = await Task.WhenAll(_ranks.Select(rank => rank.WaitAsync()));
        Assert.All(outcomes, outcome => Assert.True(outcome.ExitCode == 0, outcome.Everything));
        return [.. outcomes.Select(outcome => outcome.Output)];
    }

    /// <summary>Waits until a rank has reported so many steps.</summary>
    public Task StepAsync(int rank, int step) => Workplace.UntilAsync(
        () => Agent.Reports.TryGetValue(rank, out var reports) && reports.Any(report => report.Step >= step), $"step {step} of rank {rank}");

    public async ValueTask DisposeAsync()
    {
        foreach (TrainerProgram rank in _ranks)
        {
            if (!rank.HasExited)
            {
                LinuxProcesses.Signal(rank.Pid, LinuxProcesses.Kill);
            }

            rank.Dispose();
        }

        await Agent.DisposeAsync();
    }
}
