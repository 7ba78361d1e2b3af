using Trainer.Worker.Data;

namespace Trainer.Worker.Verification;

/// <summary>Rows of equal length with padding on the right, as transformers takes them; each array is [rows, length].</summary>
public sealed record GoldenBatch(int Rows, int Length, long[] InputIds, long[] Labels, long[] AttentionMask)
{
    /// <summary>What is wrong with the values, or null.</summary>
    public string? Problem(int vocabulary)
    {
        for (int row = 0; row < Rows; row++)
        {
            ReadOnlySpan<long> mask = AttentionMask.AsSpan(row * Length, Length);
            int real = mask.IndexOf(0) is >= 0 and int first ? first : Length;
            if (real == 0 || mask[..real].ContainsAnyExcept(1) || mask[real..].ContainsAnyExcept(0))
            {
                return $"attention_mask: row {row} must be ones, at least one, and then zeros (padding on the right)";
            }
        }

        return InputIds.Any(id => id < 0 || id >= vocabulary) ? $"input_ids: an id is not below vocab_size {vocabulary}"
            : Labels.Any(label => label != PackedBatch.Ignored && (label < 0 || label >= vocabulary)) ? $"labels: one is neither -100 nor below vocab_size {vocabulary}"
            : Pack(padded: false).TrainedTokens == 0 ? "labels: no token is trained"
            : null;
    }

    /// <summary>The documents packed one after another without padding; or, padded, every row in full as a document.</summary>
    public PackedBatch Pack(bool padded)
    {
        var tokens = new List<int>();
        var labels = new List<long>();
        var positions = new List<int>();
        var offsets = new List<int> { 0 };
        for (int row = 0; row < Rows; row++)
        {
            int length = padded ? Length : RealLength(row);
            for (int i = 0; i < length; i++)
            {
                tokens.Add((int)InputIds[(row * Length) + i]);
                labels.Add(i + 1 < length ? Labels[(row * Length) + i + 1] : PackedBatch.Ignored);
                positions.Add(i);
            }

            offsets.Add(tokens.Count);
        }

        return new PackedBatch
        {
            Tokens = [.. tokens],
            Labels = [.. labels],
            Positions = [.. positions],
            CuSeqlens = [.. offsets],
            TrainedTokens = labels.Count(label => label != PackedBatch.Ignored),
            Documents = [.. Enumerable.Range(0, Rows)],
        };
    }

    /// <summary>Indices into [rows * length] of the real tokens, and where each lies in the packed (or padded) batch.</summary>
    public IEnumerable<(long Golden, long Ours)> RealTokens(bool padded)
    {
        long packed = 0;
        for (int row = 0; row < Rows; row++)
        {
            for (int i = 0; i < RealLength(row); i++)
            {
                long golden = (row * (long)Length) + i;
                yield return (golden, padded ? golden : packed++);
            }
        }
    }

    private int RealLength(int row) => (int)AttentionMask.AsSpan(row * Length, Length).ToArray().Sum();
}
