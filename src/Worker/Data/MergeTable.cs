using System.Buffers;
using System.Runtime.CompilerServices;

namespace Trainer.Worker.Data;

/// <summary>
/// Byte-pair merges by rank. A word starts as one token a byte; the pair of neighbours with the lowest rank (the leftmost
/// of equals) becomes one token until no pair is in the table. O(n log n), so that a megabyte without a space is harmless.
/// </summary>
internal sealed class MergeTable(Dictionary<long, MergeTable.Merge> merges)
{
    private readonly Dictionary<long, Merge> _merges = merges;

    internal readonly record struct Merge(int Rank, int Token);

    /// <summary>Neighbours as they were when found: stale once either has been merged away.</summary>
    private readonly record struct Candidate(int Position, int Left, int Right, int Merged);

    public static long Key(int left, int right) => ((long)left << 32) | (uint)right;

    /// <exception cref="EndOfStreamException">There is less than was written.</exception>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static MergeTable Read(BinaryReader reader)
    {
        int count = reader.ReadInt32();
        var merges = new Dictionary<long, Merge>(count);
        for (int i = 0; i < count; i++)
        {
            merges[reader.ReadInt64()] = new Merge(reader.ReadInt32(), reader.ReadInt32());
        }

        return new MergeTable(merges);
    }

    public void Write(BinaryWriter writer)
    {
        writer.Write(_merges.Count);
        foreach ((long key, Merge merge) in _merges)
        {
            writer.Write(key);
            writer.Write(merge.Rank);
            writer.Write(merge.Token);
        }
    }

    public int[] Apply(ReadOnlySpan<int> bytes)
    {
        if (bytes.Length == 1)
        {
            return [bytes[0]];
        }

        int[] scratch = ArrayPool<int>.Shared.Rent(bytes.Length * 3);
        try
        {
            int n = bytes.Length;
            Span<int> tokens = scratch.AsSpan(0, n);
            Span<int> previous = scratch.AsSpan(n, n);
            Span<int> next = scratch.AsSpan(2 * n, n);
            bytes.CopyTo(tokens);
            return Apply(tokens, previous, next);
        }
        finally
        {
            ArrayPool<int>.Shared.Return(scratch);
        }
    }

    /// <summary>The tokens form a linked list: a merge keeps the left node and unlinks the right one, marked with -1.</summary>
    private int[] Apply(Span<int> tokens, Span<int> previous, Span<int> next)
    {
        int n = tokens.Length;

        // By rank, then position, in one number.
        var queue = new PriorityQueue<Candidate, long>();
        for (int i = 0; i < n; i++)
        {
            previous[i] = i - 1;
            next[i] = i + 1;
            Enqueue(queue, tokens, i, i + 1);
        }

        int count = n;
        while (queue.TryDequeue(out Candidate pair, out _))
        {
            int left = pair.Position;
            int right = next[left];
            if (tokens[left] != pair.Left || right == n || tokens[right] != pair.Right)
            {
                continue;
            }

            tokens[left] = pair.Merged;
            tokens[right] = -1;
            count--;
            next[left] = next[right];
            if (next[left] < n)
            {
                previous[next[left]] = left;
                Enqueue(queue, tokens, left, next[left]);
            }

            if (previous[left] >= 0)
            {
                Enqueue(queue, tokens, previous[left], left);
            }
        }

        var result = new int[count];
        for (int i = 0, k = 0; i < n; i = next[i])
        {
            result[k++] = tokens[i];
        }

        return result;
    }

    private void Enqueue(PriorityQueue<Candidate, long> queue, Span<int> tokens, int left, int right)
    {
        if (right < tokens.Length && _merges.TryGetValue(Key(tokens[left], tokens[right]), out Merge merge))
        {
            queue.Enqueue(new Candidate(left, tokens[left], tokens[right], merge.Token), ((long)merge.Rank << 32) | (uint)left);
        }
    }
}
