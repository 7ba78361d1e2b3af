using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Distributed;

/// <summary>Checks that all ranks hold the same values before they go on together.</summary>
public static class Agreement
{
    /// <summary>A collective: every rank learns every rank's values, so all of them fail with the same reason.</summary>
    /// <exception cref="CollectiveException">The first value in which a rank differs from rank 0.</exception>
    public static void Require(ICommunicator ranks, params (string Name, long Value)[] values)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor all = zeros([ranks.WorldSize, values.Length], ScalarType.Int64);
        all[ranks.Rank].copy_(tensor(values.Select(value => value.Value).ToArray()));
        ranks.AllReduceSum([all]);
        long[] table = all.data<long>().ToArray();
        for (int rank = 1; rank < ranks.WorldSize; rank++)
        {
            for (int i = 0; i < values.Length; i++)
            {
                if (table[(rank * values.Length) + i] != table[i])
                {
                    throw new CollectiveException(FormattableString.Invariant(
                        $"rank {ranks.Rank} of {ranks.WorldSize}: the ranks disagree: {values[i].Name} is {table[i]} on rank 0 and {table[(rank * values.Length) + i]} on rank {rank}"));
                }
            }
        }
    }
}
