using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

public sealed class SampleOrderTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(7)]
    [InlineData(64)]
    [InlineData(1000)]
    [InlineData(65_537)]
    public void Every_epoch_has_each_document_once(int documents)
    {
        var order = new SampleOrder(seed: 42, documents);
        for (int epoch = 0; epoch < 3; epoch++)
        {
            var seen = new bool[documents];
            for (int i = 0; i < documents; i++)
            {
                seen[order.At(((long)epoch * documents) + i)] = true;
            }

            Assert.DoesNotContain(false, seen);
        }
    }

    [Fact]
    public void Epochs_and_seeds_have_orders_of_their_own_and_the_same_seed_the_same()
    {
        int[] Epoch(int seed, int epoch) => [.. Enumerable.Range(epoch * 500, 500).Select(i => new SampleOrder(seed, 500).At(i))];
        Assert.Equal(Epoch(1, 0), Epoch(1, 0));
        Assert.NotEqual(Epoch(1, 0), Epoch(1, 1));
        Assert.NotEqual(Epoch(1, 0), Epoch(2, 0));
        Assert.NotEqual(Epoch(-1, 0), Epoch(1, 0));
    }

    /// <summary>100 documents, 4,000 epochs: each place sees each document 40 times; 6 standard deviations are 38.</summary>
    [Fact]
    public void Places_are_dealt_evenly()
    {
        var order = new SampleOrder(seed: 9, documents: 100);
        var first = new int[100];
        for (int epoch = 0; epoch < 4000; epoch++)
        {
            first[order.At(epoch * 100L)]++;
        }

        Assert.InRange(first.Min(), 2, 40);
        Assert.InRange(first.Max(), 40, 78);
    }
}
