using Trainer.Benchmarks;
using Trainer.Contracts;
using Trainer.Coordinator;

namespace Coordinator.Tests;

/// <summary>Gangs on simulated nodes, through queue, jobs, nodes and HTTP: whole, once, and within the slots.</summary>
public sealed class GangTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task Gangs_are_placed_whole_and_once_whatever_their_sizes(int seed)
    {
        using var home = new TestHome();
        var random = new Random(seed);
        const int Jobs = 60, Slots = 3;
        await using CoordinatorHost host = await CoordinatorHost.StartAsync(home.Home, new CoordinatorOptions());
        using CoordinatorClient client = CoordinatorClient.At(home.Home.Socket);
        var ledger = new GangLedger(Slots);
        using var end = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        SimulatedNode[] nodes = [.. Enumerable.Range(0, 8).Select(i =>
            new SimulatedNode($"n{i}", Slots, TimeSpan.FromSeconds(0.1 + (random.NextDouble() * 0.5)), client, client, ledger, Task.CompletedTask, new Latencies(), new Latencies()))];
        Task[] running = [.. nodes.Select(node => node.RunAsync(TimeSpan.FromSeconds(random.NextDouble() * 3), end.Token))];
        for (int i = 0; i < Jobs; i++)
        {
            JobConfig job = home.Job($"gang-{i}", random.Next(-2, 3));
            await client.SubmitAsync(new SubmitRequest { Config = job with { Resources = job.Resources with { Ranks = random.Next(1, 9) } } });
        }
        while (ledger.Complete < Jobs && !end.IsCancellationRequested)
        {
            await Task.Delay(50);
        }
        int complete = ledger.Complete;
        await end.CancelAsync();
        await Task.WhenAll(running).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);
        Array.ForEach(nodes, node => node.Dispose());

        Assert.Equal(Jobs, complete);
        Assert.Empty(ledger.Problems);
    }
}
