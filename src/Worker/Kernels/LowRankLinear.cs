using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

/// <summary>A low-rank change of some outputs of a linear layer: scale * B (A dropout(x)).</summary>
/// <param name="Row">The first output that it changes.</param>
/// <param name="A_RI">float32.</param>
/// <param name="B_OR">float32; O outputs from <paramref name="Row"/> on.</param>
/// <param name="Dropout">Probability, in [0, 1).</param>
/// <param name="Seed">As for <see cref="Ops.Dropout"/>.</param>
public sealed record LowRank(long Row, Tensor A_RI, Tensor B_OR, double Scale, double Dropout, ulong Seed);

public static partial class Ops
{
    /// <summary><see cref="Linear(Tensor, Tensor, Tensor?, bool)"/> and the changes of its outputs: products only, which add up in place.</summary>
    /// <param name="x_TI">float32 or bfloat16; slices of columns are read in place.</param>
    /// <param name="weight_OI">Dtype of x.</param>
    /// <param name="bias_O">Dtype of x, or null.</param>
    /// <param name="changes">Of outputs that differ.</param>
    /// <param name="onlyGradients">As there.</param>
    /// <returns>[T, O], contiguous, of x's dtype.</returns>
    /// <exception cref="ArgumentException">Dtype or shape of the named tensor.</exception>
    public static Tensor Linear(Tensor x_TI, Tensor weight_OI, Tensor? bias_O, IReadOnlyList<LowRank> changes, bool onlyGradients = false) =>
        LowRankLinearFunction.apply([x_TI, weight_OI, bias_O!, changes, onlyGradients, .. changes.SelectMany(change => new object[] { change.A_RI, change.B_OR })]);
}

internal sealed class LowRankLinearFunction : autograd.SingleTensorFunction<LowRankLinearFunction>
{
    /// <summary>Arguments before the pairs of A and B.</summary>
    private const int Before = 5;

    public override string Name => "LowRankLinear";

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        (var changes, bool onlyGradients) = ((IReadOnlyList<LowRank>)vars[3], (bool)vars[4]);
        (Tensor rows_TI, Tensor y_TO) = LinearFunction.Product((Tensor)vars[0], (Tensor)vars[1], vars[2] as Tensor, onlyGradients);
        List<Tensor> saved = [rows_TI, (Tensor)vars[1]];
        foreach (LowRank[] group in Groups(changes))
        {
            Tensor[] bs_OR = [.. group.Select(change => Factor(rows_TI, change.A_RI, change.B_OR))];
            Tensor a_RI = (group.Length == 1 ? group[0].A_RI : cat([.. group.Select(change => change.A_RI)], 0)).to(rows_TI.dtype);
            Tensor down_TR = Matmul.Forward(DropoutFunction.Drop(rows_TI, group[0].Dropout, group[0].Seed), a_RI).mul_(group[0].Scale);
            long column = 0;
            foreach ((LowRank change, Tensor b_OR) in group.Zip(bs_OR))
            {
                if (!onlyGradients)
                {
                    Matmul.AddForward(down_TR.narrow(1, column, b_OR.size(1)), b_OR, y_TO.narrow(1, change.Row, b_OR.size(0)));
                }

                column += b_OR.size(1);
            }

            saved.AddRange([a_RI, down_TR, .. bs_OR]);
        }

        ctx.save_data(nameof(changes), changes.Select(change => change with { A_RI = null!, B_OR = null! }).ToArray());
        ctx.save_for_backward(saved);
        return y_TO;
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        List<Tensor> saved = ctx.get_saved_variables();
        (Tensor rows_TI, Tensor dy_TO) = (saved[0], grad_output.AsRows());
        (Tensor? dx_TI, Tensor? dweight_OI, Tensor? dbias_O) = LinearFunction.Gradients(ctx, rows_TI, saved[1], dy_TO);
        var changes = (LowRank[])ctx.get_data("changes");
        var gradients = new Tensor[Before + (2 * changes.Length)];
        (gradients[0], gradients[1], gradients[2]) = (dx_TI!, dweight_OI!, dbias_O!);
        int next = 2;
        foreach (LowRank[] group in Groups(changes))
        {
            (Tensor a_RI, Tensor down_TR) = (saved[next], saved[next + 1]);
            Tensor[] bs_OR = [.. saved.Skip(next + 2).Take(group.Length)];
            next += 2 + group.Length;
            Tensor ddown_TR = empty(down_TR.shape, down_TR.dtype, down_TR.device);
            int[] places = [.. group.Select(change => Before + (2 * Array.IndexOf(changes, change)))];
            long column = 0;
            for (int i = 0; i < group.Length; i++)
            {
                Tensor b_OR = bs_OR[i], part_TO = dy_TO.narrow(1, group[i].Row, b_OR.size(0));
                if (ctx.needs_input_grad(places[i] + 1))
                {
                    Tensor dB_OR = gradients[places[i] + 1] = empty(b_OR.shape, float32, b_OR.device);
                    Matmul.WeightGradient(part_TO, down_TR.narrow(1, column, b_OR.size(1)), dB_OR);
                }

                Matmul.InputGradient(part_TO, b_OR, ddown_TR.narrow(1, column, b_OR.size(1)));
                column += b_OR.size(1);
            }

            ddown_TR.mul_(group[0].Scale);
            if (places.Any(place => ctx.needs_input_grad(place)))
            {
                Tensor dA_RI = empty(a_RI.shape, float32, a_RI.device);
                Matmul.WeightGradient(ddown_TR, DropoutFunction.Drop(rows_TI, group[0].Dropout, group[0].Seed), dA_RI);
                long row = 0;
                for (int i = 0; i < group.Length; i++)
                {
                    gradients[places[i]] = dA_RI.narrow(0, row, bs_OR[i].size(1));
                    row += bs_OR[i].size(1);
                }
            }

            if (dx_TI is not null && group[0].Dropout == 0)
            {
                Matmul.InputGradient(ddown_TR, a_RI, dx_TI, accumulate: true);
            }
            else if (dx_TI is not null)
            {
                Tensor dropped_TI = empty(dx_TI.shape, dx_TI.dtype, dx_TI.device);
                Matmul.InputGradient(ddown_TR, a_RI, dropped_TI);
                dx_TI.add_(DropoutFunction.Drop(dropped_TI, group[0].Dropout, group[0].Seed));
            }
        }

        return [.. gradients];
    }

    /// <summary>Those whose first products are one: they read the same input, and scale alike.</summary>
    private static LowRank[][] Groups(IReadOnlyList<LowRank> changes) =>
        [.. changes.GroupBy(change => (change.Scale, Alone: change.Dropout == 0 ? -1 : change.Row)).Select(group => group.ToArray())];

    /// <summary>B as the products take it.</summary>
    private static Tensor Factor(Tensor rows_TI, Tensor A_RI, Tensor B_OR)
    {
        A_RI.RequireDtype(float32);
        A_RI.RequireShape([-1, rows_TI.size(1)]);
        B_OR.RequireDtype(float32);
        B_OR.RequireShape([-1, A_RI.size(0)]);
        return B_OR.to(rows_TI.dtype);
    }
}
