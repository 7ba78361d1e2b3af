using System.Diagnostics;
using TorchSharp;
using TorchSharp.Extras;
using Trainer.Worker.Distributed;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Distributed;

public sealed class CommunicatorTests
{
    [GlooTheory]
    [InlineData(2, 1)]
    [InlineData(2, 10_007)]
    [InlineData(3, 10_007)]
    public async Task A_sum_has_the_same_bits_on_every_rank_and_in_every_run(int worldSize, int length)
    {
        float[][] sums = await Sum();
        float[] expected = [.. Enumerable.Range(0, length).Select(i => Enumerable.Range(0, worldSize).Sum(rank => Values(rank)[i]))];
        Assert.All(sums, sum => Assert.Equal(sums[0], sum));
        Assert.All(Enumerable.Range(0, length), i => Assert.Equal(expected[i], sums[0][i], 1e-5));
        Assert.Equal(sums[0], (await Sum())[0]);

        float[] Values(int rank) => [.. new Random(rank).GetItems(Enumerable.Range(-1000, 2000).Select(i => i / 999f).ToArray(), length)];

        Task<float[][]> Sum() => GlooRanks.RunAsync(worldSize, ranks =>
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor values = tensor(Values(ranks.Rank));
            ranks.AllReduceSum([values]);
            return values.data<float>().ToArray();
        });
    }

    [GlooFact]
    public async Task Integers_and_doubles_are_summed_exactly()
    {
        (long, double)[] sums = await GlooRanks.RunAsync(2, ranks =>
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor integers = tensor([(1L << 60) + ranks.Rank]), doubles = tensor([0.1 + ranks.Rank]);
            ranks.AllReduceSum([integers, doubles]);
            return (integers.data<long>().ToArray()[0], doubles.data<double>().ToArray()[0]);
        });
        Assert.All(sums, sum => Assert.Equal(((1L << 61) + 1, 0.1 + 1.1), sum));
    }

    [GlooFact]
    public async Task A_broadcast_brings_the_tensor_of_its_root()
    {
        long[] got = await GlooRanks.RunAsync(3, ranks =>
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor value = tensor([(long)ranks.Rank]);
            ranks.Broadcast(value, root: 2);
            return value.data<long>().ToArray()[0];
        });
        Assert.Equal([2, 2, 2], got);
    }

    [GlooFact]
    public async Task Nobody_passes_a_barrier_before_all_have_come()
    {
        int come = 0;
        int[] seen = await GlooRanks.RunAsync(3, ranks =>
        {
            Thread.Sleep(ranks.Rank * 50);
            Interlocked.Increment(ref come);
            ranks.Barrier();
            return Volatile.Read(ref come);
        });
        Assert.Equal([3, 3, 3], seen);
    }

    [GlooFact]
    public async Task When_a_rank_leaves_the_others_fail_at_once_and_say_which_they_are_and_in_what()
    {
        string[] messages = await GlooRanks.RunAsync(2, ranks =>
        {
            if (ranks.Rank == 1)
            {
                return "";
            }

            using DisposeScope scope = NewDisposeScope();
            Tensor values = zeros([4], ScalarType.Float32);
            long begun = Stopwatch.GetTimestamp();
            var e = Assert.Throws<CollectiveException>(() => ranks.AllReduceSum([values]));
            Assert.True(Stopwatch.GetElapsedTime(begun) < TimeSpan.FromSeconds(5));
            return e.Message;
        });
        Assert.StartsWith("rank 0 of 2: gloo.all_reduce: ", messages[0], StringComparison.Ordinal);
        Assert.EndsWith("(inputs: float32[4])", messages[0], StringComparison.Ordinal);
    }

    [GlooFact]
    public void A_tensor_that_gloo_would_misread_is_refused()
    {
        using DisposeScope scope = NewDisposeScope();
        TcpStore store = TcpStore.Serve("127.0.0.1", TimeSpan.FromSeconds(5));
        using var alone = new GlooCommunicator(store, "127.0.0.1", 0, 1);
        var e = Assert.Throws<CollectiveException>(() => alone.AllReduceSum([zeros(2, 3).t()]));
        Assert.Contains("contiguous", e.Message, StringComparison.Ordinal);
        Assert.Throws<CollectiveException>(() => alone.AllReduceSum([zeros([2], ScalarType.BFloat16)]));
    }

    [GlooFact]
    public async Task Ranks_that_disagree_all_learn_in_what()
    {
        string[] messages = await GlooRanks.RunAsync(3, ranks =>
        {
            Agreement.Require(ranks, ("the step", 5));
            return Assert.Throws<CollectiveException>(
                () => Agreement.Require(ranks, ("the step", 7), ("the cursor", ranks.Rank == 2 ? 11 : 10))).Message;
        });
        Assert.Equal("rank 1 of 3: the ranks disagree: the cursor is 10 on rank 0 and 11 on rank 2", messages[1]);
        Assert.All(messages, message => Assert.EndsWith("the cursor is 10 on rank 0 and 11 on rank 2", message, StringComparison.Ordinal));
    }

    [Fact]
    public void A_rank_alone_has_every_sum_already()
    {
        using DisposeScope scope = NewDisposeScope();
        using var solo = new SoloCommunicator();
        Tensor value = tensor([1.5]);
        solo.AllReduceSum([value]);
        solo.Broadcast(value, 0);
        solo.Barrier();
        Assert.Equal((0, 1, 1.5), (solo.Rank, solo.WorldSize, value.data<double>().ToArray()[0]));
    }
}
