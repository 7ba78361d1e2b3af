using System.Globalization;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Tests.Distributed;
using Xunit.Abstractions;

namespace Trainer.EndToEnd.Tests;

/// <summary>
/// Three ranks on three agents under a coordinator: whatever dies, the training ends bitwise equal to one that nothing disturbed,
/// the events say what happened, and no process is left.
/// </summary>
public sealed class ClusterTests(ITestOutputHelper output)
{
    private const int Ranks = 3;

    private static readonly string[] s_options = ["--set", $"resources.ranks={Ranks}", "--set", "samples.prompts=[]", "--set", "training.steps=100"];
    private static readonly Lazy<Task<TrainingTrace>> s_undisturbed = new(UndisturbedAsync);

    /// <summary>TRAINER_FAULT_RUNS: how often every fault is tried, at other steps each time. When absent, the death of everything once.</summary>
    public static TheoryData<string, int> Faults
    {
        get
        {
            int? runs = int.TryParse(Environment.GetEnvironmentVariable("TRAINER_FAULT_RUNS"), CultureInfo.InvariantCulture, out int given) ? given : null;
            var faults = new TheoryData<string, int>();
            foreach (string fault in s_faults.Where(fault => runs is not null || fault.Value.IsQuick).Select(fault => fault.Key))
            {
                for (int run = 0; run < (runs ?? 1); run++)
                {
                    faults.Add(fault, 3 + (run * 7 % 23));
                }
            }
            return faults;
        }
    }

    private sealed record Fault(Func<Cluster, Task> Strike, int Attempts, string[] Events)
    {
        public int Agents { get; init; } = Ranks;

        /// <summary>Every run of the tests tries it.</summary>
        public bool IsQuick { get; init; }
    }

    private static readonly Dictionary<string, Fault> s_faults = new()
    {
        ["a rank is killed"] = new(cluster =>
        {
            LinuxProcesses.Signal(cluster.Ranks("w2").Values.Single(), LinuxProcesses.Kill);
            return Task.CompletedTask;
        }, 2, ["ended without a result", "SIGKILL", "attempt 2 starts"]),

        ["an agent is killed and comes back"] = new(async cluster =>
        {
            cluster.Kill("w2");
            await Task.Delay(3000);
            cluster.StartAgent("w2", 1);
        }, 1, []),

        ["the coordinator is killed and comes back"] = new(async cluster =>
        {
            cluster.Kill("c");
            await Task.Delay(3000);
            cluster.StartCoordinator();
        }, 1, []),

        ["everything is killed at once and comes back"] = new(async cluster =>
        {
            int[] ranks = [.. Enumerable.Range(1, Ranks).SelectMany(i => cluster.Ranks($"w{i}").Values)];
            cluster.Kill("c");
            for (int i = 1; i <= Ranks; i++)
            {
                cluster.Kill($"w{i}");
            }
            Array.ForEach(ranks, rank => LinuxProcesses.Signal(rank, LinuxProcesses.Kill));
            await Task.Delay(1000);
            cluster.StartCoordinator();
            for (int i = 1; i <= Ranks; i++)
            {
                cluster.StartAgent($"w{i}", 1);
            }
        }, 2, ["ended", "attempt 2 starts"]) { IsQuick = true },

        ["an agent is out of reach for 15 s"] = new(async cluster =>
        {
            LinuxProcesses.Signal(cluster.PidOf("w3"), LinuxProcesses.Stop);
            await Task.Delay(15000);
            LinuxProcesses.Signal(cluster.PidOf("w3"), LinuxProcesses.Continue);
        }, 1, ["does not answer", "answers again"]),

        ["a rank hangs"] = new(cluster =>
        {
            LinuxProcesses.Signal(cluster.Ranks("w2").Values.Single(), LinuxProcesses.Stop);
            return Task.CompletedTask;
        }, 2, ["no sign of life", "taking the stacks", "attempt 2 starts"]),

        ["a node is drained"] = new(cluster =>
        {
            LinuxProcesses.Signal(cluster.PidOf("w1"), LinuxProcesses.Terminate);
            return Task.CompletedTask;
        }, 2, ["is drained", "stopped to go on elsewhere", "attempt 2 starts"]) { Agents = Ranks + 1 },
    };

    [GlooTheory]
    [MemberData(nameof(Faults))]
    public async Task A_training_over_three_agents_survives(string name, int step)
    {
        TrainingTrace undisturbed = await s_undisturbed.Value;
        Fault fault = s_faults[name];
        using var cluster = new Cluster();
        await cluster.StartAsync(fault.Agents, 1);
        JobView job = await cluster.SubmitAsync(s_options);
        await cluster.UntilStepAsync(step);

        await fault.Strike(cluster);

        job = await cluster.UntilJobAsync(view => view.Status is JobStatus.Succeeded, "success");
        string history = string.Join('\n', job.History.Select(entry => entry.Text));
        output.WriteLine($"{name} at step {step}: {job.Attempt} attempts\n{history}");
        Assert.True(job.Attempt == fault.Attempts, $"{job.Attempt} attempts:\n{history}");
        Assert.All(fault.Events, text => Assert.Contains(text, history, StringComparison.Ordinal));
        (await TraceAsync(cluster, job)).AssertEqual(undisturbed);
        await Cluster.UntilAsync(() => Task.FromResult(Enumerable.Range(1, 4).All(i => cluster.Ranks($"w{i}").Count == 0)), "the ranks to be gone");
        if (name == "a rank hangs")
        {
            for (int rank = 0; rank < Ranks; rank++)
            {
                string stacks = new AttemptFiles(Path.Combine(cluster.HomeOf(job.Nodes[rank]).Job(job.Id).Directory, "attempt-1")).StacksOf(rank);
                Assert.True(File.Exists(stacks) && new FileInfo(stacks).Length > 100, stacks);
            }
        }
        await LogsAreWholeAsync(cluster, job);
    }

    private static async Task<TrainingTrace> UndisturbedAsync()
    {
        using var cluster = new Cluster();
        await cluster.StartAsync(Ranks, 1);
        await cluster.SubmitAsync(s_options);
        JobView job = await cluster.UntilJobAsync(view => view.Status is JobStatus.Succeeded, "success");
        Assert.Equal(1, job.Attempt);
        return await TraceAsync(cluster, job);
    }

    private static Task<TrainingTrace> TraceAsync(Cluster cluster, JobView job) =>
        TrainingTrace.ReadAsync(cluster.HomeOf(job.Nodes[0]).Job(job.Id), CheckpointStore.Open(cluster.Store));

    /// <summary>What the coordinator has of every rank of every attempt is what the rank wrote, to the last byte.</summary>
    private static async Task LogsAreWholeAsync(Cluster cluster, JobView job)
    {
        for (int attempt = 1; attempt <= job.Attempt; attempt++)
        {
            AttemptFiles shipped = cluster.CoordinatorHome.Job(job.Id).Attempt(attempt);
            for (int node = 1; node <= 4; node++)
            {
                AttemptFiles own = cluster.HomeOf($"w{node}").Job(job.Id).Attempt(attempt);
                foreach (int rank in Enumerable.Range(0, Ranks).Where(rank => File.Exists(own.StdoutOf(rank))))
                {
                    await Cluster.UntilAsync(() => Task.FromResult(
                        File.Exists(shipped.StdoutOf(rank)) && File.ReadAllBytes(shipped.StdoutOf(rank)).AsSpan().SequenceEqual(File.ReadAllBytes(own.StdoutOf(rank)))),
                        $"the whole log of rank {rank} of attempt {attempt} on w{node}");
                }
            }
        }
    }
}
