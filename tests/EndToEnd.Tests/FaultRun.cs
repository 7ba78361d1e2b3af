using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Tests;

namespace Trainer.EndToEnd.Tests;

/// <summary>A training on a cluster to which a fault happens, and what is measured of it.</summary>
internal sealed partial class FaultRun(Fault fault, Action<string> say) : IAsyncDisposable
{
    private const double FirstStepWithin = 15;

    /// <summary>Seconds of a step, so that time and not the machine decides what a fault hits.</summary>
    private const string Pace = "0.15";

    private SmallDisk? _disk;
    private DateTimeOffset _struck;

    public Cluster Cluster { get; } = new();

    /// <summary>Where the checkpoints go, of a fault that needs it.</summary>
    public Azurite? Blobs { get; set; }

    /// <summary>Trains, with the fault at the step; null: nothing happens.</summary>
    /// <returns>The job as it succeeded.</returns>
    public async Task<JobView> TrainAsync(int? step)
    {
        if (step is not null && fault.Prepare is { } prepare)
        {
            await prepare(this);
        }
        if (step is not null)
        {
            Cluster.Place.Environment["TRAINER_TEST_PACE"] = Pace;
        }
        await Cluster.StartAsync(fault.Agents, fault.Slots);
        await Cluster.SubmitAsync("--set", $"resources.ranks={fault.Ranks}", "--set", "samples.prompts=[]", "--set", "training.batch_tokens=256", "--set", $"training.steps={fault.Steps}");
        if (step is { } at)
        {
            await Cluster.UntilStepAsync(at);
            _struck = DateTimeOffset.UtcNow;
            await fault.Strike(this);
        }
        return await Cluster.UntilJobAsync(view => view.Status is JobStatus.Succeeded, "success");
    }

    public Task<TrainingTrace> TraceAsync(JobView job) => TrainingTrace.ReadAsync(
        Cluster.HomeOf(job.Nodes[0]).Job(job.Id),
        Blobs is null ? CheckpointStore.Open(Cluster.Store)
            : BlobAddress.Parse(Cluster.Store).Open(name => Cluster.Place.Environment.GetValueOrDefault(name), new BlobStoreOptions()));

    /// <summary>How fast the fault was noticed, how fast the training went on, and how many steps it had to repeat: within their limits.</summary>
    /// <returns>As a line of a table.</returns>
    public string Measure(JobView job)
    {
        double? noticed = fault.Noticed is { } text ? (At(job, text) - _struck).TotalSeconds : null;
        Assert.True(noticed is null || noticed <= fault.NoticedWithin, $"noticed after {noticed:0.0} s");
        double? first = null;
        int? lost = null;
        if (job.Attempt == 2)
        {
            StepLine[] before = Steps(job, 1), after = Steps(job, 2);
            // Some faults are noticed first and declared an end of the attempt later: the way back begins there.
            DateTimeOffset ended = job.History.Last(entry => IsEndOfAttempt(entry.Text)).At;
            first = (after[0].At - ended).TotalSeconds;
            lost = before[^1].Step - (after[0].Step - 1);
            Assert.True(first <= FirstStepWithin, $"the first new step came {first:0.0} s after attempt 1 had ended");
            Assert.True(!fault.LosesNoStep || lost == 0, $"{lost} steps were lost");
        }
        return string.Create(CultureInfo.InvariantCulture, $"{noticed:0.00}|{first:0.00}|{lost}|{(job.EndedAt - job.SubmittedAt)!.Value.TotalSeconds:0.0}");
    }

    /// <summary>Each attempt once, each rank of it on one node, none of them alive.</summary>
    public async Task NothingIsLeftOrTwiceAsync(JobView job)
    {
        await Cluster.UntilAsync(() => Task.FromResult(Nodes().All(node => Cluster.Ranks(node).Count == 0)), "the ranks to be gone");
        for (int attempt = 1; attempt <= job.Attempt; attempt++)
        {
            Assert.Single(job.History, entry => entry.Text.StartsWith($"attempt {attempt} starts on ", StringComparison.Ordinal));
            for (int rank = 0; rank < fault.Ranks; rank++)
            {
                Assert.True(Nodes().Count(node => File.Exists(FilesOf(node, job, attempt).StartedOf(rank))) == 1, $"rank {rank} of attempt {attempt} has not one place");
            }
        }
    }

    /// <summary>The coordinator has what every rank of every attempt wrote to the last byte, and rank 0 wrote every step once and in order.</summary>
    public async Task LogsAreWholeAsync(JobView job)
    {
        foreach (string node in Nodes())
        {
            Cluster.LinkOf(node).Mend();
        }
        for (int attempt = 1; attempt <= job.Attempt; attempt++)
        {
            AttemptFiles shipped = Cluster.CoordinatorHome.Job(job.Id).Attempt(attempt);
            foreach (string node in Nodes())
            {
                AttemptFiles own = FilesOf(node, job, attempt);
                foreach (int rank in Enumerable.Range(0, fault.Ranks).Where(rank => File.Exists(own.StdoutOf(rank))))
                {
                    await Cluster.UntilAsync(() => Task.FromResult(
                        File.Exists(shipped.StdoutOf(rank)) && File.ReadAllBytes(shipped.StdoutOf(rank)).AsSpan().SequenceEqual(File.ReadAllBytes(own.StdoutOf(rank)))),
                        $"the whole log of rank {rank} of attempt {attempt} on {node}");
                    if (job.History.Any(entry => entry.Text.Contains("taking the stacks", StringComparison.Ordinal)) && attempt == 1)
                    {
                        await Cluster.UntilAsync(() => Task.FromResult(new FileInfo(shipped.StacksOf(rank)) is { Exists: true, Length: > 100 }), $"the stacks of rank {rank}");
                    }
                }
            }
            int[] steps = [.. Steps(job, attempt).Select(line => line.Step)];
            Assert.Equal(Enumerable.Range(steps.FirstOrDefault(1), steps.Length), steps);
            Assert.True(attempt > 1 || steps[0] == 1, $"the first step of attempt 1 is {steps[0]}");
            Assert.True(attempt < job.Attempt || steps[^1] == fault.Steps, $"the last step is {steps[^1]}");
        }
    }

    public Task KillRank(string node)
    {
        LinuxProcesses.Signal(Cluster.Ranks(node).Values.First(), LinuxProcesses.Kill);
        return Task.CompletedTask;
    }

    public async Task KillEverythingAsync()
    {
        int[] ranks = Ranks();
        KillAllButRanks();
        Array.ForEach(ranks, rank => LinuxProcesses.Signal(rank, LinuxProcesses.Kill));
        await Task.Delay(1000);
        StartAll();
    }

    /// <summary>The ranks go on for a minute and then end by themselves.</summary>
    public async Task OrphanRanksAsync()
    {
        KillAllButRanks();
        long start = Stopwatch.GetTimestamp();
        await Cluster.UntilAsync(() => Task.FromResult(Ranks().Length == 0), "the orphans to end");
        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        say($"the orphans ended {seconds:0.0} s after their agents");
        Assert.InRange(seconds, 50, 75);
        StartAll();
    }

    public Task UseSmallDisk(string folder)
    {
        _disk = SmallDisk.At(folder, say);
        return Task.CompletedTask;
    }

    /// <summary>For 10 s, in which the training goes on and the trouble is told.</summary>
    public async Task FillDiskAsync(string lead, string told)
    {
        _disk!.Fill();
        int before = (await Cluster.UntilJobAsync(_ => true, "the job")).Step;
        Task tenSeconds = Task.Delay(TimeSpan.FromSeconds(10));
        await UntilToldAsync(told);
        await tenSeconds;
        int after = (await Cluster.UntilJobAsync(_ => true, "the job")).Step;
        Assert.True(after > before, $"the training stood still at step {before} on {lead}");
        _disk.Empty();
    }

    /// <summary>Waits until the history says so.</summary>
    public Task UntilToldAsync(string text) => Cluster.UntilJobAsync(
        job => job.History.Any(entry => entry.Text.Contains(text, StringComparison.Ordinal)), $"\"{text}\"");

    /// <summary>A fault that was over before the training could feel it proves nothing.</summary>
    public async Task StillTrainsAsync()
    {
        JobView job = await Cluster.UntilJobAsync(_ => true, "the job");
        Assert.True(!job.Status.IsTerminal(), $"the training was over before the fault was: step {job.Step} of {job.Steps}");
    }

    /// <summary>The last step that a rank 0 on this node has logged.</summary>
    public int StepOf(string node, int attempt) => StepLine.All(LogOf(node, attempt, 0)) is [.., var last] ? last.Step : 0;

    public string LogOf(string node, int attempt, int rank)
    {
        string path = new JobFiles(Directory.EnumerateDirectories(Cluster.HomeOf(node).Jobs, "tiny-*").Single()).Attempt(attempt).StdoutOf(rank);
        using var file = new StreamReader(new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete));
        return file.ReadToEnd();
    }

    public async ValueTask DisposeAsync()
    {
        Cluster.EndProcesses();
        _disk?.Dispose();
        if (Blobs is not null)
        {
            await Blobs.DisposeAsync();
        }
        Cluster.Dispose();
    }

    private int[] Ranks() => [.. Nodes().SelectMany(node => Cluster.Ranks(node).Values)];

    private void KillAllButRanks()
    {
        Cluster.Kill("c");
        foreach (string node in Nodes())
        {
            Cluster.Kill(node);
        }
    }

    private void StartAll()
    {
        Cluster.StartCoordinator();
        foreach (string node in Nodes())
        {
            Cluster.StartAgent(node, fault.Slots);
        }
    }

    private IEnumerable<string> Nodes() => Enumerable.Range(1, fault.Agents).Select(i => $"w{i}");

    private AttemptFiles FilesOf(string node, JobView job, int attempt) => Cluster.HomeOf(node).Job(job.Id).Attempt(attempt);

    /// <summary>Those of rank 0, wherever it was.</summary>
    private StepLine[] Steps(JobView job, int attempt) =>
        [.. Nodes().Where(node => File.Exists(FilesOf(node, job, attempt).Stdout)).SelectMany(node => StepLine.All(LogOf(node, attempt, 0)))];

    private static DateTimeOffset At(JobView job, string text) =>
        job.History.First(entry => entry.Text.Contains(text, StringComparison.Ordinal)).At;

    private static bool IsEndOfAttempt(string text) =>
        text.StartsWith("attempt 1 ended", StringComparison.Ordinal) || text.StartsWith("stopped, goes on", StringComparison.Ordinal);

    /// <summary>A line of a rank's log that tells a step.</summary>
    private sealed partial record StepLine(DateTimeOffset At, int Step)
    {
        public static StepLine[] All(string log) => [.. Pattern().Matches(log).Select(match => new StepLine(
            DateTimeOffset.Parse(match.Groups["at"].ValueSpan, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal),
            int.Parse(match.Groups["step"].ValueSpan, CultureInfo.InvariantCulture)))];

        [GeneratedRegex("^(?<at>[0-9-]{10} [0-9:.]{12}Z) step (?<step>[0-9]+)/[0-9]+ loss", RegexOptions.Multiline)]
        private static partial Regex Pattern();
    }
}
