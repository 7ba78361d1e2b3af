using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

public static partial class Ops
{
    /// <summary>x · weightᵀ + bias. A row's result has the same bits whatever rows stand beside it.</summary>
    /// <param name="x_TI">float32 or bfloat16; slices of columns are read in place.</param>
    /// <param name="weight_OI">Dtype of x.</param>
    /// <param name="bias_O">Dtype of x, or null.</param>
    /// <param name="onlyGradients">Leaves the result's values undefined: recomputation asks for what backward needs, which they are not.</param>
    /// <returns>[T, O], contiguous, of x's dtype.</returns>
    /// <exception cref="ArgumentException">Dtype or shape of the named tensor.</exception>
    public static Tensor Linear(Tensor x_TI, Tensor weight_OI, Tensor? bias_O = null, bool onlyGradients = false) =>
        LinearFunction.apply(x_TI, weight_OI, bias_O!, onlyGradients);
}

internal sealed class LinearFunction : autograd.SingleTensorFunction<LinearFunction>
{
    public override string Name => "Linear";

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (x_TI, weight_OI) = ((Tensor)vars[0], (Tensor)vars[1]);
        (Tensor rows_TI, Tensor y_TO) = Product(x_TI, weight_OI, vars[2] as Tensor, (bool)vars[3]);
        ctx.save_for_backward([ctx.needs_input_grad(1) ? rows_TI : null!, weight_OI]);
        return y_TO;
    }

    /// <summary>x as kernels read it, and x · weightᵀ + bias.</summary>
    public static (Tensor Rows_TI, Tensor Y_TO) Product(Tensor x_TI, Tensor weight_OI, Tensor? bias_O, bool onlyGradients)
    {
        x_TI.KernelDtype();
        x_TI.RequireShape([-1, -1]);
        weight_OI.RequireDtype(x_TI.dtype);
        weight_OI.RequireShape([-1, x_TI.size(1)]);
        Tensor rows_TI = x_TI.AsRows();
        bias_O?.RequireDtype(x_TI.dtype);
        bias_O?.RequireShape([weight_OI.size(0)]);
        if (onlyGradients)
        {
            return (rows_TI, empty(rows_TI.size(0), weight_OI.size(0), x_TI.dtype, x_TI.device));
        }

        Tensor y_TO = Matmul.Forward(rows_TI, weight_OI.AsRows());
        return (rows_TI, bias_O is null ? y_TO : y_TO.add_(bias_O));
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        List<Tensor> saved = ctx.get_saved_variables();
        (Tensor? dx_TI, Tensor? dweight_OI, Tensor? dbias_O) = Gradients(ctx, saved[0], saved[1], grad_output.AsRows());
        return [dx_TI!, dweight_OI!, dbias_O!, null!];
    }

    /// <summary>Of the first three arguments, those that are wanted.</summary>
    public static (Tensor? Dx_TI, Tensor? Dweight_OI, Tensor? Dbias_O) Gradients(autograd.AutogradContext ctx, Tensor? x_TI, Tensor weight_OI, Tensor dy_TO)
    {
        Tensor? dx_TI = null, dweight_OI = null, dbias_O = null;
        if (ctx.needs_input_grad(0))
        {
            dx_TI = empty(dy_TO.size(0), weight_OI.size(1), dy_TO.dtype, dy_TO.device);
            Matmul.InputGradient(dy_TO, weight_OI.AsRows(), dx_TI);
        }
        if (ctx.needs_input_grad(1))
        {
            dweight_OI = empty(weight_OI.shape, weight_OI.dtype, weight_OI.device);
            Matmul.WeightGradient(dy_TO, x_TI!, dweight_OI);
        }
        if (ctx.needs_input_grad(2))
        {
            // Wide for bits that no packing changes, which GPUs do not give anyway.
            ScalarType wide = dy_TO.KernelDevice() == KernelDevice.Cuda ? float32 : float64;
            dbias_O = dy_TO.sum(0, type: wide).to(dy_TO.dtype);
        }
        return (dx_TI, dweight_OI, dbias_O);
    }
}
