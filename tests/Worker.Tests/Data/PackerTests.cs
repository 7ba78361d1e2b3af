using Trainer.Contracts;
using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

public sealed class PackerTests : IDisposable
{
    private const int MaxLength = 50;

    private readonly TemporaryFolder _folder = new();
    private readonly List<PreparedDataset> _opened = [];

    public static TheoryData<int> Seeds => [.. Enumerable.Range(0, 25)];

    public void Dispose()
    {
        _opened.ForEach(data => data.Dispose());
        _folder.Dispose();
    }

    [Theory]
    [MemberData(nameof(Seeds))]
    public void An_epoch_has_each_document_once_in_order_within_the_budget(int seed)
    {
        (Packer packer, PreparedDataset data, SampleOrder order, int batches, int tokens, int? documents) = Random(seed);
        long cursor = 0;
        long trained = 0;
        while (cursor < 2L * data.Count)
        {
            StepBatches step = packer.Next(cursor);
            Assert.Equal(batches, step.Batches.Count);
            Assert.InRange(step.NextCursor, cursor + 1, cursor + data.Count);
            int[] expected = [.. Enumerable.Range(0, (int)(step.NextCursor - cursor)).Select(i => order.At(cursor + i)).Order()];
            Assert.Equal(expected, step.Batches.SelectMany(batch => batch.Documents).Order());
            Assert.All(step.Batches, batch => Assert.True(batch.Tokens.Length <= tokens && batch.Documents.Length <= (documents ?? int.MaxValue)));
            Assert.Equal(Math.Min(expected.Length, batches), step.Batches.Count(batch => batch.Documents.Length > 0));
            Assert.Equal(step.Batches.Sum(batch => batch.TrainedTokens), step.TrainedTokens);
            Assert.Equal(step.Batches.Sum(batch => batch.Tokens.Length), step.Tokens);
            Assert.True(step.TrainedTokens > 0);
            if (step.NextCursor - cursor < data.Count)
            {
                int next = data.Length(order.At(step.NextCursor));
                Assert.All(step.Batches, batch => Assert.True(batch.Tokens.Length + next > tokens || batch.Documents.Length == documents));
            }

            cursor = step.NextCursor;
            trained += step.TrainedTokens;
        }

        Assert.True(trained >= 2 * data.Certificate.TrainedTokens);
    }

    [Theory]
    [MemberData(nameof(Seeds))]
    public void A_batch_is_its_documents_behind_each_other(int seed)
    {
        (Packer packer, PreparedDataset data, _, _, _, _) = Random(seed);
        foreach (PackedBatch batch in packer.Next(seed * 3).Batches)
        {
            Assert.Equal(0, batch.CuSeqlens[0]);
            Assert.Equal(batch.Documents.Length + 1, batch.CuSeqlens.Length);
            Assert.Equal(batch.Tokens.Length, batch.CuSeqlens[^1]);
            Assert.Equal((batch.Tokens.Length, batch.Tokens.Length), (batch.Labels.Length, batch.Positions.Length));
            Assert.Equal(batch.TrainedTokens, batch.Labels.Count(label => label != -100));
            for (int d = 0; d < batch.Documents.Length; d++)
            {
                PreparedToken[] document = data[batch.Documents[d]].ToArray();
                Range range = batch.CuSeqlens[d]..batch.CuSeqlens[d + 1];
                Assert.Equal(document.Select(t => t.Id), batch.Tokens[range]);
                Assert.Equal(Enumerable.Range(0, document.Length), batch.Positions[range]);
                Assert.Equal([.. document.Skip(1).Select(t => t.Trained ? t.Id : -100L), -100], batch.Labels[range]);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Seeds))]
    public void The_shares_of_all_ranks_are_the_step_of_one(int seed)
    {
        (Packer packer, _, _, _, _, _) = Random(seed);
        StepBatches whole = packer.Next(seed);
        foreach (int worldSize in (int[])[1, 2, 3, 7])
        {
            StepBatches[] shares = [.. Enumerable.Range(0, worldSize).Select(rank => packer.Next(seed, rank, worldSize))];
            Assert.All(shares, share => Assert.Equal(
                (whole.NextCursor, whole.Tokens, whole.TrainedTokens), (share.NextCursor, share.Tokens, share.TrainedTokens)));
            for (int batch = 0; batch < whole.Batches.Count; batch++)
            {
                Assert.Equal(whole.Batches[batch].Documents, shares[batch % worldSize].Batches[batch / worldSize].Documents);
            }

            Assert.Equal(whole.Batches.Count, shares.Sum(share => share.Batches.Count));
        }
    }

    [Theory]
    [MemberData(nameof(Seeds))]
    public void A_run_continues_from_any_cursor_as_if_it_had_never_stopped(int seed)
    {
        (Packer packer, PreparedDataset data, _, int batches, int tokens, int? documents) = Random(seed);
        var fresh = new Packer(data, new SampleOrder(seed, data.Count), batches, tokens, documents);
        long cursor = 0;
        var cursors = new List<long>();
        for (int step = 0; step < 10; step++)
        {
            cursors.Add(cursor);
            cursor = packer.Next(cursor).NextCursor;
        }

        foreach (long resumed in Enumerable.Reverse(cursors))
        {
            StepBatches expected = packer.Next(resumed);
            StepBatches actual = fresh.Next(resumed);
            Assert.Equal(expected.NextCursor, actual.NextCursor);
            Assert.Equal(expected.Batches.Select(b => string.Join(' ', b.Tokens)), actual.Batches.Select(b => string.Join(' ', b.Tokens)));
        }
    }

    [Theory]
    [MemberData(nameof(Seeds))]
    public void Steps_of_an_epoch_are_counted_as_they_are_taken(int seed)
    {
        (Packer packer, PreparedDataset data, _, _, _, _) = Random(seed);
        foreach (double epochs in (double[])[0, 0.5, 1, 2.25])
        {
            int steps = 0;
            for (long cursor = 0; cursor < Math.Ceiling(epochs * data.Count); steps++)
            {
                cursor = packer.Next(cursor).NextCursor;
            }

            Assert.Equal(steps, packer.StepsFor(epochs));
            Assert.Equal(Math.Max(0, steps - 1), packer.StepsFor(epochs, packer.Next(0).NextCursor));
        }
    }

    [Fact]
    public void Fewer_documents_than_batches_are_spread_and_not_repeated()
    {
        PreparedDataset data = Dataset([10, 10, 10]);
        StepBatches two = new Packer(data, new SampleOrder(0, 3), batches: 2, batchTokens: 1000).Next(0);
        Assert.Equal([2, 1], two.Batches.Select(batch => batch.Documents.Length));
        Assert.Equal(3, two.NextCursor);
        StepBatches five = new Packer(data, new SampleOrder(0, 3), batches: 5, batchTokens: 1000).Next(3);
        Assert.Equal([1, 1, 1, 0, 0], five.Batches.Select(batch => batch.Documents.Length).OrderDescending());
        PackedBatch empty = five.Batches.First(batch => batch.Documents.Length == 0);
        Assert.Equal((0, 0), (empty.Tokens.Length, empty.TrainedTokens));
        Assert.Equal([0], empty.CuSeqlens);
    }

    [Fact]
    public void The_fullest_batch_that_holds_a_document_takes_it()
    {
        PreparedDataset data = Dataset([60, 50, 40, 30]);
        var packer = new Packer(data, new SampleOrder(1, 4), batches: 2, batchTokens: 100);
        Assert.All(packer.Next(0).Batches, batch => Assert.InRange(batch.Tokens.Length, 80, 100));
    }

    [Fact]
    public void A_budget_below_the_longest_document_is_refused()
    {
        var e = Assert.Throws<JobInputException>(() => new Packer(Dataset([10, 30]), new SampleOrder(1, 2), 1, batchTokens: 29));
        Assert.Equal("training.batch_tokens is 29, but a document has 30 tokens; raise batch_tokens to at least data.max_length", e.Message);
    }

    private (Packer Packer, PreparedDataset Data, SampleOrder Order, int Batches, int Tokens, int? Documents) Random(int seed)
    {
        var random = new Random(seed);
        PreparedDataset data = Dataset([.. Enumerable.Range(0, random.Next(1, 120)).Select(_ => random.Next(2, MaxLength + 1))]);
        int batches = random.Next(1, 6);
        int tokens = random.Next(MaxLength, 4 * MaxLength);
        int? documents = random.Next(2) == 0 ? null : random.Next(1, 6);
        var order = new SampleOrder(seed, data.Count);
        return (new Packer(data, order, batches, tokens, documents), data, order, batches, tokens, documents);
    }

    private PreparedDataset Dataset(int[] lengths)
    {
        var random = new Random(lengths.Length);
        string path = _folder.Path($"{_opened.Count}.tokens");
        string fingerprint = new('a', 64);
        using (var writer = new PreparedDatasetWriter(path, fingerprint, int.MaxValue, OverlongPolicy.Error))
        {
            foreach (int length in lengths)
            {
                bool[] trained = [.. Enumerable.Range(0, length).Select(i => i == length - 1 || random.Next(2) == 0)];
                writer.Add(new Document("", 1, null, ""), new TokenizedDocument([.. trained.Select(_ => random.Next(100_000))], trained));
            }

            writer.Commit();
        }

        _opened.Add(PreparedDataset.TryOpen(path, fingerprint)!);
        return _opened[^1];
    }
}
