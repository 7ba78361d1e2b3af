using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

public static partial class Ops
{
    /// <summary>x / sqrt(mean(x²) + epsilon) * weight over the last dimension.</summary>
    /// <param name="x">[..., D], float32 or bfloat16; [T, N, D] slices are read in place.</param>
    /// <param name="weight">[D], float32 or bfloat16, of any of the two.</param>
    /// <param name="epsilon">At least 0.</param>
    /// <returns>The shape and dtype of x.</returns>
    /// <exception cref="ArgumentException">Dtype or shape of the named tensor.</exception>
    public static Tensor RmsNorm(Tensor x, Tensor weight, double epsilon) => RmsNormFunction.apply(x, weight, epsilon);

    /// <summary>Sum = x + residual in their dtype; Normed = <see cref="RmsNorm"/> of Sum.</summary>
    /// <param name="x">[..., D], float32 or bfloat16.</param>
    /// <param name="residual">Shape and dtype of x.</param>
    /// <param name="weight">[D], float32 or bfloat16.</param>
    /// <param name="epsilon">At least 0.</param>
    /// <exception cref="ArgumentException">Dtype or shape of the named tensor.</exception>
    public static (Tensor Normed, Tensor Sum) AddRmsNorm(Tensor x, Tensor residual, Tensor weight, double epsilon)
    {
        List<Tensor> results = AddRmsNormFunction.apply(x, residual, weight, epsilon);
        return (results[0], results[1]);
    }
}

internal sealed class RmsNormFunction : autograd.SingleTensorFunction<RmsNormFunction>
{
    public override string Name => "RmsNorm";

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (x, weight) = ((Tensor)vars[0], (Tensor)vars[1]);
        (Tensor y, _, Tensor rstd) = RmsNormKernel.Forward(x, null, weight, (double)vars[2]);
        ctx.save_for_backward([x, weight, rstd]);
        return y;
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        List<Tensor> saved = ctx.get_saved_variables();
        (Tensor dx, Tensor? dweight) = RmsNormKernel.Backward(saved[0], saved[1], saved[2], grad_output, null, ctx.needs_input_grad(1));
        return [dx, dweight!, null!];
    }
}

internal sealed class AddRmsNormFunction : autograd.MultiTensorFunction<AddRmsNormFunction>
{
    public override string Name => "AddRmsNorm";

    public override List<Tensor> forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (x, residual, weight) = ((Tensor)vars[0], (Tensor)vars[1], (Tensor)vars[2]);
        (Tensor y, Tensor? sum, Tensor rstd) = RmsNormKernel.Forward(x, residual, weight, (double)vars[3]);
        ctx.save_for_backward([sum!, weight, rstd]);
        return [y, sum!];
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, List<Tensor> grad_outputs)
    {
        List<Tensor> saved = ctx.get_saved_variables();
        (Tensor dx, Tensor? dweight) =
            RmsNormKernel.Backward(saved[0], saved[1], saved[2], grad_outputs[0], grad_outputs[1], ctx.needs_input_grad(2));
        return [dx, dx, dweight!, null!];
    }
}

internal static class RmsNormKernel
{
    /// <summary>Sum is null without a residual; rstd is float32, one for each row.</summary>
    /// <param name="into">Takes y: of x's shape, two or three dimensions. Null: a new tensor.</param>
    public static (Tensor Y, Tensor? Sum, Tensor Rstd) Forward(Tensor x, Tensor? residual, Tensor weight, double epsilon, Tensor? into = null)
    {
        RequireWeight(x, weight);
        long[] shape = x.shape;
        Tensor rows = x.Flattened();
        residual?.RequireDtype(x.dtype);
        residual?.RequireShape(shape);
        if (StandIn(weight, rows, residual?.Flattened(), into))
        {
            Tensor added = residual is null ? rows : rows + residual.Flattened();
            (Tensor normed, Tensor perRow) = TorchOps.RmsNorm(added, weight, epsilon);
            return (into is null ? normed.reshape(shape) : into.copy_(normed), residual is null ? null : added.reshape(shape), perRow);
        }

        Tensor y = into ?? empty(rows.shape, x.dtype, x.device);
        Tensor rstd = empty(Count(rows), float32, x.device);
        Tensor? sum = null;
        if (residual is not null)
        {
            sum = empty(rows.shape, x.dtype, x.device);
        }
        var args = new tn_rms_norm_forward_args
        {
            device = x.KernelDevice(),
            dtype = x.KernelDtype(),
            weight_dtype = weight.KernelDtype(),
            tokens = rows.size(0),
            heads = rows.Dimensions == 3 ? rows.size(1) : 1,
            width = rows.size(-1),
            epsilon = (float)epsilon,
            x_TND = rows.View(),
            residual_TND = residual?.Flattened().View() ?? default,
            sum_TND = sum?.View() ?? default,
            y_TND = y.View(),
            weight_D = weight.Elements(),
            rstd_TN = rstd.Elements(),
        };
        KernelException.ThrowIfFailed(TrainerKernels.tn_rms_norm_forward(args, x.KernelStream()));
        return (into ?? y.reshape(shape), sum?.reshape(shape), rstd);
    }

    /// <param name="sum">What was normalised.</param>
    /// <param name="weight">[D].</param>
    /// <param name="rstd">Of forward.</param>
    /// <param name="dy">The gradient of the normed tensor.</param>
    /// <param name="dsum">What else reaches sum, or null.</param>
    /// <param name="wantsWeight">Whether dweight is computed.</param>
    /// <param name="into">Takes dx: of x's shape, two or three dimensions, perhaps dy itself. Null: a new tensor.</param>
    public static (Tensor Dx, Tensor? Dweight) Backward(Tensor sum, Tensor weight, Tensor rstd, Tensor dy, Tensor? dsum, bool wantsWeight, Tensor? into = null)
    {
        Tensor rows = sum.Flattened(), dyRows = dy.Flattened();
        Tensor? dsumRows = dsum?.Flattened();
        if (StandIn(weight, rows, dyRows, dsumRows, into))
        {
            (Tensor through, Tensor? ofWeight) = TorchOps.RmsNormBackward(rows, weight, rstd.view([.. rows.shape[..^1], 1]), dyRows, wantsWeight);
            Tensor all = dsumRows is null ? through : through.add_(dsumRows);
            return (into is null ? all.reshape(sum.shape) : into.copy_(all), ofWeight);
        }

        long tokens = rows.size(0), heads = rows.Dimensions == 3 ? rows.size(1) : 1, width = rows.size(-1), needed = 0;
        if (wantsWeight)
        {
            KernelException.ThrowIfFailed(TrainerKernels.tn_rms_norm_backward_scratch_bytes(sum.KernelDevice(), tokens, heads, width, out needed));
        }

        Tensor scratch = empty([needed], uint8, sum.device);
        Tensor dx = into ?? empty(rows.shape, sum.dtype, sum.device);
        Tensor? dweight = wantsWeight ? empty(weight.shape, weight.dtype, weight.device) : null;
        var args = new tn_rms_norm_backward_args
        {
            device = sum.KernelDevice(),
            dtype = sum.KernelDtype(),
            weight_dtype = weight.KernelDtype(),
            tokens = tokens,
            heads = heads,
            width = width,
            sum_TND = rows.View(),
            dy_TND = dyRows.View(),
            dsum_TND = dsumRows?.View() ?? default,
            dx_TND = dx.View(),
            weight_D = weight.Elements(),
            dweight_D = dweight?.Elements() ?? 0,
            rstd_TN = rstd.Elements(),
            scratch = needed > 0 ? scratch.DataPointer : 0,
            scratch_bytes = needed,
        };
        KernelException.ThrowIfFailed(TrainerKernels.tn_rms_norm_backward(args, sum.KernelStream()));
        return (into ?? dx.reshape(sum.shape), dweight);
    }

    /// <summary>Whether GPUs have these as libtorch's operators: the kernels take rows of eights, in the places of eights.</summary>
    private static bool StandIn(Tensor weight, params Tensor?[] rows) =>
        rows[0]!.KernelDevice() == KernelDevice.Cuda
        && (TorchOps.StandIn(weight) || weight.size(0) % 8 != 0 || weight.size(0) > 8192 || !IsAligned(weight) || rows.Any(each => each is not null && !IsAligned(each)));

    private static bool IsAligned(Tensor tensor) =>
        tensor.DataPointer % 16 == 0 && tensor.stride()[..^1].Zip(tensor.shape).All(axis => axis.Second == 1 || axis.First % 8 == 0);

    private static void RequireWeight(Tensor x, Tensor weight)
    {
        x.KernelDtype();
        if (x.Dimensions == 0)
        {
            throw new ArgumentException($"x must have at least one dimension: {x}", nameof(x));
        }
        weight.RequireShape([x.size(-1)]);
    }

    private static long Count(Tensor rows) => rows.NumberOfElements / Math.Max(1, rows.size(-1));
}
