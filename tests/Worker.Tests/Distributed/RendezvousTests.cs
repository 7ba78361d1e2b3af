using TorchSharp;
using TorchSharp.Extras;
using Trainer.Worker.Distributed;

namespace Trainer.Worker.Tests.Distributed;

public sealed class RendezvousTests
{
    [GlooFact]
    public async Task Ranks_meet_where_rank_0_announces_itself()
    {
        Rendezvous[] ranks = [.. Enumerable.Range(0, 3).Select(rank => new Rendezvous(rank, 3, "127.0.0.1"))];
        Assert.All(ranks, rank => Assert.True(rank.IsPending));

        ICommunicator[] met = await Task.WhenAll(ranks.Select(rank => Task.Factory.StartNew(() => rank.Join(torch.CPU, endpoint =>
        {
            ranks[1].Tell(endpoint);
            ranks[2].Tell(endpoint);
            ranks[2].Tell(endpoint);
        }), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default)));

        Assert.Equal([(0, 3), (1, 3), (2, 3)], met.Select(rank => (rank.Rank, rank.WorldSize)));
        Assert.All(ranks, rank => Assert.False(rank.IsPending));
        Assert.All(met.Reverse(), rank => rank.Dispose());
    }

    [Fact]
    public void A_rank_alone_meets_nobody()
    {
        var rendezvous = new Rendezvous(0, 1, "127.0.0.1");
        Assert.False(rendezvous.IsPending);
        Assert.IsType<SoloCommunicator>(rendezvous.Join(torch.CPU, _ => Assert.Fail("announced")));
    }

    [Theory]
    [InlineData("nonsense")]
    [InlineData(":1")]
    [InlineData("host:port")]
    public void An_endpoint_that_is_none_is_told(string endpoint)
    {
        var rendezvous = new Rendezvous(1, 2, "127.0.0.1");
        rendezvous.Tell(endpoint);
        var e = Assert.Throws<CollectiveException>(() => rendezvous.Join(torch.CPU, _ => { }));
        Assert.Equal($"rank 1 of 2: rendezvous: \"{endpoint}\" is no host:port", e.Message);
    }

    [Fact]
    public void Ranks_that_do_not_come_are_named()
    {
        using TcpStore store = TcpStore.Serve("127.0.0.1", TimeSpan.FromSeconds(5));
        var e = Assert.Throws<TorchException>(() => store.Meet("CPU", 0, 3, TimeSpan.FromSeconds(0.5)));
        Assert.Equal("store.meet: rank 1, 2 of 3 did not come within 0.5 s", e.Message);
    }

    [Fact]
    public async Task A_rank_of_a_CPU_and_one_of_a_GPU_both_learn_that_they_cannot_speak()
    {
        using TcpStore store = TcpStore.Serve("127.0.0.1", TimeSpan.FromSeconds(5)), other = TcpStore.Connect("127.0.0.1", store.Port, TimeSpan.FromSeconds(5));
        string[] messages = await Task.WhenAll(
            Task.Run(() => Assert.Throws<TorchException>(() => store.Meet("CPU", 0, 2, TimeSpan.FromSeconds(5))).Message),
            Task.Run(() => Assert.Throws<TorchException>(() => other.Meet("GPU", 1, 2, TimeSpan.FromSeconds(5))).Message));
        Assert.Equal(["store.meet: rank 0 came with a CPU, rank 1 with a GPU", "store.meet: rank 1 came with a GPU, rank 0 with a CPU"], messages);
    }

    [Fact]
    public async Task What_one_rank_leaves_in_the_store_another_finds()
    {
        using TcpStore store = TcpStore.Serve("127.0.0.1", TimeSpan.FromSeconds(5)), other = TcpStore.Connect("127.0.0.1", store.Port, TimeSpan.FromSeconds(5));
        byte[] found = new byte[3];
        Task reading = Task.Run(() => other.Get("key", found));
        store.Set("key", [0, 255, 7]);
        await reading;
        Assert.Equal([0, 255, 7], found);
        Assert.Contains("key has 3 bytes, 2 are wanted", Assert.Throws<TorchException>(() => store.Get("key", new byte[2])).Message, StringComparison.Ordinal);
    }
}
