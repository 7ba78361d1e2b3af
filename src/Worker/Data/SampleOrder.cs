using System.Numerics;

namespace Trainer.Worker.Data;

/// <summary>
/// The order in which training sees the documents: in every epoch each document once, in an order of its own. A pure function
/// of (seed, sample index) without a table: a Feistel network permutes [0, 4^k), and what falls outside is permuted again.
/// </summary>
public sealed class SampleOrder
{
    private const int Rounds = 6;

    private readonly ulong _seed;
    private readonly int _halfBits;

    public SampleOrder(int seed, int documents)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(documents);
        _seed = (ulong)seed;
        Documents = documents;
        int bits = 32 - BitOperations.LeadingZeroCount((uint)(documents - 1));
        _halfBits = Math.Max(1, (bits + 1) / 2);
    }

    public int Documents { get; }

    /// <summary>The document of a global sample index: index / Documents is the epoch.</summary>
    public int At(long sample)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(sample);
        ulong epochKey = Mix(_seed + Mix((ulong)(sample / Documents)));
        uint value = (uint)(sample % Documents);
        do
        {
            value = Permute(value, epochKey);
        }
        while (value >= (uint)Documents);
        return (int)value;
    }

    /// <summary>The finaliser of SplitMix64.</summary>
    internal static ulong Mix(ulong x)
    {
        x += 0x9E3779B97F4A7C15;
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
        return x ^ (x >> 31);
    }

    private uint Permute(uint value, ulong key)
    {
        uint mask = (1u << _halfBits) - 1;
        uint left = value >> _halfBits;
        uint right = value & mask;
        for (int round = 0; round < Rounds; round++)
        {
            (left, right) = (right, left ^ ((uint)(Mix(key ^ ((ulong)round << 32) ^ right) >> 32) & mask));
        }

        return (left << _halfBits) | right;
    }
}
