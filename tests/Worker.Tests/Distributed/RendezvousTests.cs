using Trainer.Worker.Distributed;

namespace Trainer.Worker.Tests.Distributed;

public sealed class RendezvousTests
{
    [GlooFact]
    public async Task Ranks_meet_where_rank_0_announces_itself()
    {
        Rendezvous[] ranks = [.. Enumerable.Range(0, 3).Select(rank => new Rendezvous(rank, 3, "127.0.0.1"))];
        Assert.All(ranks, rank => Assert.True(rank.IsPending));

        ICommunicator[] met = await Task.WhenAll(ranks.Select(rank => Task.Factory.StartNew(() => rank.Join(endpoint =>
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
        Assert.IsType<SoloCommunicator>(rendezvous.Join(_ => Assert.Fail("announced")));
    }

    [Theory]
    [InlineData("nonsense")]
    [InlineData(":1")]
    [InlineData("host:port")]
    public void An_endpoint_that_is_none_is_told(string endpoint)
    {
        var rendezvous = new Rendezvous(1, 2, "127.0.0.1");
        rendezvous.Tell(endpoint);
        var e = Assert.Throws<CollectiveException>(() => rendezvous.Join(_ => { }));
        Assert.Equal($"rank 1 of 2: rendezvous: \"{endpoint}\" is no host:port", e.Message);
    }
}
