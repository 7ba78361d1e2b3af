namespace Trainer.Worker.Data;

/// <summary>
/// Fills the micro-batches of optimizer steps. A step takes samples in their order, each into the fullest batch that still
/// holds it, until one fits nowhere; that one begins the next step. A pure function of the cursor: a run resumes at any step,
/// with any number of ranks, from one number.
/// </summary>
public sealed class Packer
{
    private readonly PreparedDataset _data;
    private readonly SampleOrder _order;
    private readonly int _batches;
    private readonly int _batchTokens;
    private readonly int _batchDocuments;

    /// <param name="data">The documents.</param>
    /// <param name="order">Their order; over exactly these documents.</param>
    /// <param name="batches">Micro-batches of one step, over all ranks.</param>
    /// <param name="batchTokens">Tokens of one micro-batch at most; no document is longer.</param>
    /// <param name="batchDocuments">Documents of one micro-batch at most; null: as many as fit.</param>
    public Packer(PreparedDataset data, SampleOrder order, int batches, int batchTokens, int? batchDocuments = null)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(batches);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(batchDocuments ?? 1, nameof(batchDocuments));
        ArgumentOutOfRangeException.ThrowIfNotEqual(order.Documents, data.Count);
        if (data.LongestDocument > batchTokens)
        {
            throw new JobInputException($"training.batch_tokens is {batchTokens}, but a document has {data.LongestDocument} tokens; "
                + "raise batch_tokens to at least data.max_length");
        }

        _data = data;
        _order = order;
        _batches = batches;
        _batchTokens = batchTokens;
        _batchDocuments = batchDocuments ?? int.MaxValue;
    }

    /// <summary>The step that begins at a global sample index: the share of a rank, which has every worldSize-th micro-batch.</summary>
    public StepBatches Next(long cursor, int rank = 0, int worldSize = 1)
    {
        (List<int>[] plan, long next) = Plan(cursor);
        return new StepBatches(
            [.. plan.Where((_, batch) => batch % worldSize == rank).Select(documents => Pack(_data, documents))],
            next,
            plan.Sum(documents => documents.Sum(document => (long)_data.Length(document))),
            plan.Sum(documents => documents.Sum(document => (long)Labels(_data[document]))));
    }

    /// <summary>
    /// Optimizer steps from a cursor on, after which each document was seen this many times (the last step may begin a further epoch).
    /// </summary>
    public int StepsFor(double epochs, long cursor = 0)
    {
        long samples = (long)Math.Ceiling(epochs * _order.Documents);
        int steps = 0;
        for (; cursor < samples; steps++)
        {
            cursor = Plan(cursor).Next;
        }

        return steps;
    }

    /// <summary>Documents of each batch. A step never takes more samples than there are documents.</summary>
    private (List<int>[] Batches, long Next) Plan(long cursor)
    {
        List<int>[] batches = [.. Enumerable.Range(0, _batches).Select(_ => new List<int>())];
        Span<int> free = new int[_batches];
        free.Fill(_batchTokens);
        long next = cursor;
        for (; next - cursor < _order.Documents; next++)
        {
            int document = _order.At(next);
            int length = _data.Length(document);
            int best = BestFit(batches, free, length);
            if (best < 0)
            {
                return (batches, next);
            }

            batches[best].Add(document);
            free[best] -= length;
        }

        Spread(batches);
        return (batches, next);
    }

    private int BestFit(List<int>[] batches, ReadOnlySpan<int> free, int length)
    {
        int best = -1;
        for (int i = 0; i < batches.Length; i++)
        {
            if (free[i] >= length && batches[i].Count < _batchDocuments && (best < 0 || free[i] < free[best]))
            {
                best = i;
            }
        }

        return best;
    }

    /// <summary>So few documents that batches stayed empty: each empty one takes the last document of the one with most.</summary>
    private static void Spread(List<int>[] batches)
    {
        foreach (List<int> empty in batches.Where(batch => batch.Count == 0))
        {
            List<int> most = batches.MaxBy(batch => batch.Count)!;
            if (most.Count > 1)
            {
                empty.Add(most[^1]);
                most.RemoveAt(most.Count - 1);
            }
        }
    }

    /// <summary>Trained tokens but the first: nothing predicts that.</summary>
    private static int Labels(ReadOnlySpan<PreparedToken> document)
    {
        int labels = 0;
        for (int i = 1; i < document.Length; i++)
        {
            labels += document[i].Trained ? 1 : 0;
        }

        return labels;
    }

    /// <summary>One batch of exactly these documents.</summary>
    public static PackedBatch Pack(PreparedDataset data, IReadOnlyList<int> documents)
    {
        int total = documents.Sum(data.Length);
        var tokens = new int[total];
        var labels = new long[total];
        var positions = new int[total];
        var cuSeqlens = new int[documents.Count + 1];
        int trained = 0;
        for (int d = 0, start = 0; d < documents.Count; d++)
        {
            ReadOnlySpan<PreparedToken> document = data[documents[d]];
            for (int i = 0; i < document.Length; i++)
            {
                tokens[start + i] = document[i].Id;
                positions[start + i] = i;
                bool isLabel = i + 1 < document.Length && document[i + 1].Trained;
                labels[start + i] = isLabel ? document[i + 1].Id : PackedBatch.Ignored;
                trained += isLabel ? 1 : 0;
            }

            start += document.Length;
            cuSeqlens[d + 1] = start;
        }

        return new PackedBatch
        {
            Tokens = tokens,
            Labels = labels,
            Positions = positions,
            CuSeqlens = cuSeqlens,
            Documents = [.. documents],
            TrainedTokens = trained,
        };
    }
}
