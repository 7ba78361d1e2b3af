using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

/// <summary>A low-rank change of some outputs of a linear layer: scale * B (A dropout(x)).</summary>
/// <param name="Row">The first output that it changes.</param>
/// <param name="A_RI">float32.</param>
/// <param name="B_OR">float32; O outputs from <paramref name="Row"/> on.</param>
/// <param name="Salt">Makes its dropout another than that of the changes beside it.</param>
public sealed record LowRank(long Row, Tensor A_RI, Tensor B_OR, double Scale, ulong Salt = 0);

/// <summary>
/// The low-rank changes of one layer's outputs, with their factors as its products read them: in x's dtype, every A below the one before,
/// every B scaled. They are made anew when an A or B has changed since.
/// </summary>
public sealed class LowRankFactors : IDisposable
{
    private readonly long[] _versions;

    /// <param name="changes">Of outputs that differ.</param>
    /// <param name="dtype">float32 or bfloat16.</param>
    /// <exception cref="ArgumentException">Dtype or shape of the named tensor.</exception>
    public LowRankFactors(IReadOnlyList<LowRank> changes, ScalarType dtype)
    {
        using TorchSharp.DisposeScope scope = NewDisposeScope();
        foreach ((_, Tensor A_RI, Tensor B_OR, _, _) in changes)
        {
            A_RI.RequireDtype(float32);
            A_RI.RequireShape([-1, changes[0].A_RI.size(-1)]);
            B_OR.RequireDtype(float32);
            B_OR.RequireShape([-1, A_RI.size(0)]);
        }

        Changes = changes;
        Device device = changes[0].A_RI.device;
        Starts = [0, .. changes.Select(change => change.A_RI.size(0))];
        for (int i = 1; i < Starts.Length; i++)
        {
            Starts[i] += Starts[i - 1];
        }

        As_SI = empty([Starts[^1], changes[0].A_RI.size(1)], dtype, device).DetachFromDisposeScope();
        Bs_OR = [.. changes.Select(change => empty(change.B_OR.shape, dtype, device).DetachFromDisposeScope())];
        _versions = [.. Enumerable.Repeat(-1L, 2 * changes.Count)];
    }

    public IReadOnlyList<LowRank> Changes { get; }

    /// <summary>Where in <see cref="As_SI"/> each A begins, and at last where all end.</summary>
    internal long[] Starts { get; }

    internal Tensor As_SI { get; }

    internal Tensor[] Bs_OR { get; }

    private bool IsCurrent
    {
        get
        {
            for (int i = 0; i < Changes.Count; i++)
            {
                if (Changes[i].A_RI.Version() != _versions[2 * i] || Changes[i].B_OR.Version() != _versions[(2 * i) + 1])
                {
                    return false;
                }
            }

            return true;
        }
    }

    /// <summary>Makes those that are not current anew, together: a launch for each of hundreds of adapters takes longer than their products.</summary>
    public static void Refresh(IEnumerable<LowRankFactors> all)
    {
        LowRankFactors[] stale = [.. all.Where(factors => !factors.IsCurrent)];
        if (stale.Length == 0)
        {
            return;
        }

        using TorchSharp.DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        List<Tensor> targets = [], sources = [];
        foreach (LowRankFactors factors in stale)
        {
            for (int i = 0; i < factors.Changes.Count; i++)
            {
                targets.Add(factors.As_SI.narrow(0, factors.Starts[i], factors.Starts[i + 1] - factors.Starts[i]));
                sources.Add(factors.Changes[i].A_RI);
            }
        }

        foreach (var alike in stale.SelectMany(factors => factors.Changes.Zip(factors.Bs_OR)).GroupBy(each => each.First.Scale))
        {
            targets.AddRange(alike.Select(each => each.Second));
            sources.AddRange(Fused.Scale([.. alike.Select(each => each.First.B_OR)], alike.Key));
        }

        Fused.Copy([.. targets], [.. sources]);
        foreach (LowRankFactors factors in stale)
        {
            for (int i = 0; i < factors.Changes.Count; i++)
            {
                (factors._versions[2 * i], factors._versions[(2 * i) + 1]) = (factors.Changes[i].A_RI.Version(), factors.Changes[i].B_OR.Version());
            }
        }
    }

    public void Dispose()
    {
        As_SI.Dispose();
        foreach (Tensor b_OR in Bs_OR)
        {
            b_OR.Dispose();
        }
    }
}
