using System.Diagnostics;
using System.Globalization;
using Trainer.Contracts;

namespace Trainer.Benchmarks;

/// <summary>
/// From the start of "trainer submit" to the line of the first step in metrics.jsonl, again and again, under a coordinator with an
/// agent that run already. The job is the demo's model on the demo's data.
/// </summary>
internal static class FirstStepBenchmark
{
    public static async Task<int> RunAsync(int submissions)
    {
        string home = Directory.CreateTempSubdirectory("bench-").FullName;
        string job = Path.Combine(TrainerProgram.Repository(), "configs", "demo.yaml");
        var seconds = new List<double>();
        try
        {
            // Starts the coordinator, and is not counted.
            await FirstStepAsync(home, job);
            for (int i = 0; i < submissions; i++)
            {
                seconds.Add(await FirstStepAsync(home, job));
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{seconds[^1]:0.00} s"));
            }
        }
        finally
        {
            await RunAsync(home, "stop");
            Directory.Delete(home, recursive: true);
        }
        double[] sorted = [.. seconds.Order()];
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"submit to first step: p50 {sorted[sorted.Length / 2]:0.00} s, p90 {sorted[sorted.Length * 9 / 10]:0.00} s, max {sorted[^1]:0.00} s of {sorted.Length}"));
        return 0;
    }

    private static async Task<double> FirstStepAsync(string home, string job)
    {
        HashSet<string> before = [.. Jobs(home)];
        long start = Stopwatch.GetTimestamp();
        Task submitting = RunAsync(home, "submit", job, "--set", "training.steps=3", "--set", "optimizer.warmup_steps=0");
        string? folder = null;
        while (folder is null || new FileInfo(new JobFiles(folder).Metrics) is not { Exists: true, Length: > 0 })
        {
            await Task.Delay(5);
            folder ??= Jobs(home).FirstOrDefault(found => !before.Contains(found));
        }
        double took = Stopwatch.GetElapsedTime(start).TotalSeconds;
        await submitting;
        while (!File.Exists(new JobFiles(folder).Attempt(1).Result))
        {
            await Task.Delay(20);
        }
        // The rank writes its result before it ends, and its job is over a moment later.
        await Task.Delay(1500);
        return took;
    }

    private static string[] Jobs(string home) => Directory.Exists(new TrainerHome(home).Jobs) ? Directory.GetDirectories(new TrainerHome(home).Jobs) : [];

    private static async Task RunAsync(string home, params string[] arguments)
    {
        ProcessStartInfo command = TrainerProgram.Command(home, arguments);
        command.RedirectStandardOutput = true;
        using Process process = Process.Start(command)!;
        string output = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        if (process.ExitCode != 0)
        {
            throw new InvalidOperationException($"trainer {string.Join(' ', arguments)} ended with {process.ExitCode}: {output}");
        }
    }
}
