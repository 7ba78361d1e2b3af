using System.Collections.Concurrent;
using System.Globalization;
using Trainer.Contracts;
using Trainer.Worker.Tests.Distributed;
using Xunit.Abstractions;

namespace Trainer.EndToEnd.Tests;

/// <summary>
/// Ranks on several agents under a coordinator: whatever dies, hangs or is cut off, the training ends bitwise equal to one that nothing
/// disturbed, the events say what happened, no line of a log is lost and no process is left.
/// </summary>
public sealed class ClusterTests(ITestOutputHelper output)
{
    private static readonly ConcurrentDictionary<(int Ranks, int Steps), Lazy<Task<TrainingTrace>>> s_undisturbed = [];

    /// <summary>
    /// TRAINER_FAULT_RUNS: how often every fault is tried, at other steps each time. When absent, the death of everything once.
    /// TRAINER_FAULT_FIGURES: a file to which each run adds a line: fault, step, seconds until it was noticed, seconds from the end of
    /// attempt 1 to the first step of attempt 2, steps that were trained twice, seconds of the job.
    /// </summary>
    public static TheoryData<string, int> Faults
    {
        get
        {
            int? runs = int.TryParse(Environment.GetEnvironmentVariable("TRAINER_FAULT_RUNS"), CultureInfo.InvariantCulture, out int given) ? given : null;
            var faults = new TheoryData<string, int>();
            for (int run = 0; run < (runs ?? 1); run++)
            {
                foreach (string name in Fault.All.Where(fault => runs is not null || fault.Value.IsQuick).Select(fault => fault.Key))
                {
                    faults.Add(name, 3 + (run * 7 % 23));
                }
            }
            return faults;
        }
    }

    [GlooTheory]
    [MemberData(nameof(Faults))]
    public async Task A_training_on_several_agents_survives(string name, int step)
    {
        Fault fault = Fault.All[name];
        TrainingTrace undisturbed = await UndisturbedAsync(fault);
        await using var run = new FaultRun(fault, output.WriteLine);
        JobView job = await run.TrainAsync(step);

        string history = string.Join('\n', job.History.Select(entry => $"{entry.At:HH:mm:ss.fff} {entry.Text}"));
        output.WriteLine($"{name} at step {step}: {job.Attempt} attempts\n{history}");
        Assert.True(job.Attempt == fault.Attempts, $"{job.Attempt} attempts:\n{history}");
        Assert.All(fault.Events, text => Assert.Contains(text, history, StringComparison.Ordinal));
        (await run.TraceAsync(job)).AssertEqual(undisturbed);
        await run.NothingIsLeftOrTwiceAsync(job);
        await run.LogsAreWholeAsync(job);
        string figures = $"{name}|{step}|{run.Measure(job)}";
        output.WriteLine(figures);
        if (Environment.GetEnvironmentVariable("TRAINER_FAULT_FIGURES") is { Length: > 0 } path)
        {
            await File.AppendAllTextAsync(path, figures + "\n");
        }
    }

    private static Task<TrainingTrace> UndisturbedAsync(Fault fault) => s_undisturbed.GetOrAdd((fault.Ranks, fault.Steps), _ => new Lazy<Task<TrainingTrace>>(async () =>
    {
        await using var run = new FaultRun(fault, _ => { });
        JobView job = await run.TrainAsync(null);
        Assert.Equal(1, job.Attempt);
        return await run.TraceAsync(job);
    })).Value;
}
