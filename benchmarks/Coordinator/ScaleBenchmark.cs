using System.Collections.Immutable;
using System.Diagnostics;
using Trainer.Contracts;

namespace Trainer.Benchmarks;

/// <summary>
/// Many queued gangs of 1 to 8 ranks; many simulated nodes join within a second, and ten seconds later all of them take ranks: how
/// fast the coordinator places all gangs, and how fast it answers heartbeats meanwhile. Fails when a gang was ever placed in part, twice, or on more slots than there are.
/// </summary>
internal static class ScaleBenchmark
{
    private const int Submitters = 16;

    private static readonly TimeSpan s_joining = TimeSpan.FromSeconds(10);

    public static async Task<int> RunAsync(int jobs, int nodes, int slots, TimeSpan rankLives)
    {
        await using CoordinatorProcess coordinator = await CoordinatorProcess.StartAsync();
        Console.WriteLine($"{jobs} jobs, {nodes} nodes of {slots} slots, ranks live {rankLives.TotalSeconds:0.#} s, {Environment.ProcessorCount} cores for coordinator and load together");

        ImmutableArray<int> gangs = [.. Enumerable.Range(0, jobs).Select(job => 1 + (int)((uint)job * 2654435761 % 8))];
        long start = Stopwatch.GetTimestamp();
        await SubmitAsync(coordinator, gangs);
        Report("submit", $"{jobs / Stopwatch.GetElapsedTime(start).TotalSeconds:0} jobs/s, then {coordinator.PeakMiB:0} MiB");

        var ledger = new GangLedger(slots);
        Latencies joining = new(), latencies = new();
        var open = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using var end = new CancellationTokenSource();
        // One client for all of them: a thousand agents have a thousand processes, this has one.
        using CoordinatorClient reports = coordinator.Client("worker"), waits = coordinator.Client("worker");
        SimulatedNode[] all = [.. Enumerable.Range(0, nodes).Select(i => new SimulatedNode($"n{i:D4}", slots, rankLives, reports, waits, ledger, open.Task, joining, latencies))];
        Task[] running = [.. all.Select((node, i) => node.RunAsync(TimeSpan.FromSeconds((double)i / nodes), end.Token))];
        await Task.Delay(s_joining);
        Report("joining", joining.Describe());
        double cpu = coordinator.CpuSeconds, own = Environment.CpuUsage.TotalTime.TotalSeconds;
        start = Stopwatch.GetTimestamp();
        open.SetResult();
        while (ledger.Complete < jobs)
        {
            await Task.Delay(TimeSpan.FromSeconds(5));
            Console.WriteLine($"  {Stopwatch.GetElapsedTime(start).TotalSeconds,5:0} s: {ledger.Complete,6} gangs placed, {latencies.DescribeNew()}, {coordinator.PeakMiB:0} MiB");
            if (running.FirstOrDefault(node => node.IsFaulted) is { } failed)
            {
                await failed;
            }
        }
        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        double busy = (coordinator.CpuSeconds - cpu) / seconds, load = (Environment.CpuUsage.TotalTime.TotalSeconds - own) / seconds;
        await end.CancelAsync();
        await Task.WhenAll(running).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        Array.ForEach(all, node => node.Dispose());

        Report("placements", $"{ledger.PerSecond:0} gangs/s over all, {ledger.MedianPerSecond:0} in the median second");
        Report("heartbeats", latencies.Describe());
        Report("coordinator", $"peak {coordinator.PeakMiB:0} MiB, {busy * 100:0}% of a core while placing, the load {load * 100:0}%");
        Report("wrong", ledger.Problems.IsEmpty ? "nothing: every gang whole, once, within the slots" : string.Join("; ", ledger.Problems.Take(5)));
        return ledger.Problems.IsEmpty ? 0 : 1;
    }

    private static async Task SubmitAsync(CoordinatorProcess coordinator, ImmutableArray<int> gangs)
    {
        using CoordinatorClient client = coordinator.Client("user");
        int next = -1;
        await Task.WhenAll(Enumerable.Range(0, Submitters).Select(async _ =>
        {
            while (Interlocked.Increment(ref next) is var job && job < gangs.Length)
            {
                await client.SubmitAsync(new SubmitRequest { Config = Job(gangs[job]) });
            }
        }));
    }

    private static JobConfig Job(int ranks) => new()
    {
        Name = "load",
        Model = new ModelConfig { Config = "/model.json", Tokenizer = "/tokenizer" },
        Data = new DataConfig { Train = [new DatasetConfig { Path = "/train.jsonl" }] },
        Training = new TrainingConfig { Steps = 1 },
        Resources = new ResourcesConfig { Ranks = ranks },
    };

    private static void Report(string what, string figures) => Console.WriteLine($"{what,-12} {figures}");
}
