using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

public sealed class HeldOutSplitTests
{
    [Theory]
    [InlineData(0.5)]
    [InlineData(0.1)]
    [InlineData(0.03)]
    [InlineData(1.0 / 3)]
    [InlineData(0.001)]
    public void The_share_is_exact_and_spread_over_the_data(double fraction)
    {
        var split = new HeldOutSplit(Seed: 5, fraction);
        long[] held = [.. Enumerable.Range(0, 20_000).Select(i => (long)i).Where(split.Contains)];
        Assert.InRange(held.Length, (20_000 * fraction) - 1, (20_000 * fraction) + 1);
        Assert.All(held.Zip(held.Skip(1)), pair => Assert.True(pair.Second - pair.First < (2 / fraction) + 1));
        Assert.NotEqual(held, [.. Enumerable.Range(0, 20_000).Select(i => (long)i).Where(new HeldOutSplit(6, fraction).Contains)]);
    }

    [Fact]
    public void No_share_holds_nothing_out() =>
        Assert.DoesNotContain(Enumerable.Range(0, 1000), i => new HeldOutSplit(1, 0).Contains(i));
}
