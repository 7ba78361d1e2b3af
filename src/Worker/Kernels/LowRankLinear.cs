using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

public static partial class Ops
{
    /// <summary><see cref="Linear(Tensor, Tensor, Tensor?, bool)"/> and low-rank changes of its outputs: products only, which add up in place.</summary>
    /// <param name="x_TI">float32 or bfloat16; slices of columns are read in place.</param>
    /// <param name="weight_OI">Dtype of x.</param>
    /// <param name="bias_O">Dtype of x, or null.</param>
    /// <param name="factors">Made for x's dtype and I inputs.</param>
    /// <param name="dropout">Probability, in [0, 1).</param>
    /// <param name="seed">As for <see cref="Dropout"/>; each change takes its own from it.</param>
    /// <param name="onlyGradients">As there.</param>
    /// <returns>[T, O], contiguous, of x's dtype.</returns>
    /// <exception cref="ArgumentException">Dtype or shape of the named tensor.</exception>
    public static Tensor Linear(Tensor x_TI, Tensor weight_OI, Tensor? bias_O, LowRankFactors factors, double dropout = 0, ulong seed = 0, bool onlyGradients = false)
    {
        factors.As_SI.RequireDtype(x_TI.dtype);
        factors.As_SI.RequireShape([-1, x_TI.size(-1)]);
        LowRankFactors.Refresh([factors]);
        var arguments = new object[LowRankLinearFunction.Before + (2 * factors.Changes.Count)];
        (arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5], arguments[6]) =
            (x_TI, weight_OI, bias_O!, factors, dropout, seed, onlyGradients);
        for (int i = 0; i < factors.Changes.Count; i++)
        {
            // Products read the factors; their gradients are of these.
            arguments[LowRankLinearFunction.Before + (2 * i)] = factors.Changes[i].A_RI;
            arguments[LowRankLinearFunction.Before + (2 * i) + 1] = factors.Changes[i].B_OR;
        }

        return LowRankLinearFunction.apply(arguments);
    }
}

internal sealed class LowRankLinearFunction : autograd.SingleTensorFunction<LowRankLinearFunction>
{
    /// <summary>Arguments before the pairs of A and B.</summary>
    public const int Before = 7;

    public override string Name => "LowRankLinear";

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (factors, dropout, seed, onlyGradients) = ((LowRankFactors)vars[3], (double)vars[4], (ulong)vars[5], (bool)vars[6]);
        (Tensor rows_TI, Tensor y_TO) = LinearFunction.Product((Tensor)vars[0], (Tensor)vars[1], vars[2] as Tensor, onlyGradients);
        List<Tensor> saved = [rows_TI, (Tensor)vars[1], factors.As_SI, .. factors.Bs_OR];
        foreach ((int first, int end) in Groups(factors, dropout))
        {
            Tensor input_TI = DropoutFunction.Drop(rows_TI, dropout, seed ^ factors.Changes[first].Salt);
            Tensor down_TR = Matmul.Forward(input_TI, Rows(factors.As_SI, factors.Starts, first, end));
            for (int i = first; i < end && !onlyGradients; i++)
            {
                Tensor b_OR = factors.Bs_OR[i];
                Matmul.AddForward(Part(down_TR, factors.Starts, first, i), b_OR, new Columns(y_TO, factors.Changes[i].Row, b_OR.size(0)));
            }

            saved.Add(down_TR);
        }

        ctx.save_data("call", (factors, dropout, seed));
        ctx.save_for_backward(saved);
        return y_TO;
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        var (factors, dropout, seed) = ((LowRankFactors, double, ulong))ctx.get_data("call");
        List<Tensor> saved = ctx.get_saved_variables();
        (Tensor rows_TI, Tensor as_SI, Tensor dy_TO) = (saved[0], saved[2], grad_output.AsRows());
        var gradients = new Tensor[Before + (2 * factors.Changes.Count)];
        (Tensor? dx_TI, Tensor? dweight_OI, Tensor? dbias_O) = LinearFunction.Gradients(ctx, rows_TI, saved[1], dy_TO);
        (gradients[1], gradients[2]) = (dweight_OI!, dbias_O!);
        int next = 3 + factors.Changes.Count;
        foreach ((int first, int end) in Groups(factors, dropout))
        {
            Tensor down_TR = saved[next++], ddown_TR = empty(down_TR.shape, down_TR.dtype, down_TR.device);
            bool wantsA = false;
            for (int i = first; i < end; i++)
            {
                (LowRank change, Tensor b_OR) = (factors.Changes[i], saved[3 + i]);
                var part_TO = new Columns(dy_TO, change.Row, b_OR.size(0));
                if (ctx.needs_input_grad(Before + (2 * i) + 1))
                {
                    Tensor dB_OR = gradients[Before + (2 * i) + 1] = empty(b_OR.shape, float32, b_OR.device);
                    Matmul.WeightGradient(part_TO, Part(down_TR, factors.Starts, first, i), dB_OR, change.Scale);
                }

                Matmul.InputGradient(part_TO, b_OR, Part(ddown_TR, factors.Starts, first, i));
                wantsA |= ctx.needs_input_grad(Before + (2 * i));
            }

            ulong mask = seed ^ factors.Changes[first].Salt;
            Tensor a_RI = Rows(as_SI, factors.Starts, first, end);
            if (wantsA)
            {
                Tensor dA_RI = empty(a_RI.shape, float32, a_RI.device);
                Matmul.WeightGradient(ddown_TR, DropoutFunction.Drop(rows_TI, dropout, mask), dA_RI);
                for (int i = first; i < end; i++)
                {
                    gradients[Before + (2 * i)] = Rows(dA_RI, factors.Starts, i, i + 1, factors.Starts[first]);
                }
            }

            if (dx_TI is not null && dropout == 0)
            {
                Matmul.InputGradient(ddown_TR, a_RI, dx_TI, accumulate: true);
            }
            else if (dx_TI is not null)
            {
                Tensor dropped_TI = empty(dx_TI.shape, dx_TI.dtype, dx_TI.device);
                Matmul.InputGradient(ddown_TR, a_RI, dropped_TI);
                dx_TI.add_(DropoutFunction.Drop(dropped_TI, dropout, mask));
            }
        }

        gradients[0] = dx_TI!;
        return [.. gradients];
    }

    /// <summary>Changes whose first products are one: all of them when they read the same input, that is without dropout.</summary>
    private static IEnumerable<(int First, int End)> Groups(LowRankFactors factors, double dropout) =>
        dropout == 0 ? [(0, factors.Changes.Count)] : Enumerable.Range(0, factors.Changes.Count).Select(i => (i, i + 1));

    /// <summary>Those of the changes from first to end, of a tensor that begins with the row <paramref name="begin"/>.</summary>
    private static Tensor Rows(Tensor stacked, long[] starts, int first, int end, long begin = 0)
    {
        long count = starts[end] - starts[first];
        return count == stacked.size(0) ? stacked : stacked.narrow(0, starts[first] - begin, count);
    }

    /// <summary>The columns of change i, of a tensor that begins with those of change first.</summary>
    private static Columns Part(Tensor beside, long[] starts, int first, int i) => new(beside, starts[i] - starts[first], starts[i + 1] - starts[i]);
}
