using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Reports;

namespace Trainer.EndToEnd.Tests;

/// <summary>A folder of its own with the tiny job and a TRAINER_HOME, which nothing has created yet. Ends with all its processes.</summary>
internal sealed class Workplace : IDisposable
{
    private static readonly TimeSpan s_often = TimeSpan.FromMilliseconds(10);

    public Workplace()
    {
        Folder = Directory.CreateTempSubdirectory("e2e-").FullName;
        Environment = new Dictionary<string, string> { ["TRAINER_HOME"] = Home };
        TinyJob.Write(Folder);
    }

    public string Folder { get; }

    public string Home => Path.Combine(Folder, "home");

    public TrainerHome Files => new(Home);

    /// <summary>Of every command.</summary>
    public Dictionary<string, string> Environment { get; }

    public string PathOf(string name) => Path.Combine(Folder, name);

    /// <summary>Replaces text of a file, which must hold it.</summary>
    public void Edit(string name, string old, string replacement)
    {
        string text = File.ReadAllText(PathOf(name));
        Assert.Contains(old, text, StringComparison.Ordinal);
        File.WriteAllText(PathOf(name), text.Replace(old, replacement, StringComparison.Ordinal));
    }

    public TrainerProgram Start(params string[] arguments) => TrainerProgram.Start(Folder, Environment, arguments);

    public async Task<Outcome> RunAsync(params string[] arguments)
    {
        using TrainerProgram program = Start(arguments);
        return await program.WaitAsync();
    }

    /// <summary>Runs a command that must succeed.</summary>
    /// <returns>What it printed.</returns>
    public async Task<string> DoAsync(params string[] arguments)
    {
        Outcome outcome = await RunAsync(arguments);
        Assert.True(outcome.ExitCode == 0, $"trainer {string.Join(' ', arguments)}: {outcome.Everything}");
        return outcome.Output;
    }

    public async Task<JobView> StatusAsync(string job) =>
        JsonSerializer.Deserialize(await DoAsync("status", job, "-o", "json"), ContractsJson.Default.JobView)!;

    /// <summary>Submits without following.</summary>
    public async Task<JobView> SubmitAsync(params string[] options) =>
        JsonSerializer.Deserialize(await DoAsync(["submit", TinyJob.File, "-o", "json", .. options]), ContractsJson.Default.JobView)!;

    /// <summary>Waits for the job's end.</summary>
    public async Task<JobView> FinishAsync(JobId job)
    {
        Outcome followed = await RunAsync("logs", job.Value, "--follow");
        JobView view = await StatusAsync(job.Value);
        Assert.True(view.Status is JobStatus.Succeeded or JobStatus.Failed or JobStatus.Cancelled or JobStatus.Paused,
            $"the log ended while the job is {view.Status}: {followed.Everything}");
        return view;
    }

    /// <summary>The only job of this home, once its folder is there.</summary>
    public async Task<JobFiles> OnlyJobAsync()
    {
        await UntilAsync(() => Directory.Exists(Files.Jobs) && Directory.EnumerateDirectories(Files.Jobs).Any(), "a job's folder");
        return new JobFiles(Directory.EnumerateDirectories(Files.Jobs).Single());
    }

    /// <summary>Waits until so many steps were reported.</summary>
    public static Task StepAsync(JobFiles job, int step) =>
        UntilAsync(() => File.Exists(job.Metrics) && StepLog.ReadMetrics(job.Metrics) is [.., var last] && last.Step >= step, $"step {step}");

    public static async Task UntilAsync(Func<bool> condition, string what)
    {
        long start = Stopwatch.GetTimestamp();
        while (!condition())
        {
            if (Stopwatch.GetElapsedTime(start) > TrainerProgram.Patience)
            {
                throw new TimeoutException($"waited {TrainerProgram.Patience} for {what}");
            }
            await Task.Delay(s_often);
        }
    }

    public int CoordinatorPid() => int.Parse(File.ReadAllText(Files.Pid), CultureInfo.InvariantCulture);

    /// <summary>Every process of this home, commands included.</summary>
    public int[] Processes() => LinuxProcesses.WithVariable("TRAINER_HOME", Home);

    public static int[] Ranks(JobFiles job) => LinuxProcesses.WithVariable("TRAINER_JOB_DIR", job.Directory);

    public void Dispose()
    {
        while (Processes() is { Length: > 0 } left)
        {
            foreach (int pid in left)
            {
                LinuxProcesses.Signal(pid, LinuxProcesses.Kill);
            }
        }
        Directory.Delete(Folder, recursive: true);
    }
}
