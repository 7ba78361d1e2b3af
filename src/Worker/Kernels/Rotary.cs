using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

public static partial class Ops
{
    /// <summary>Rotary position embedding over pairs (i, i + H/2), Hugging Face's rotate_half convention.</summary>
    /// <param name="x_TNH">float32 or bfloat16, any strides with a contiguous last dimension, H even.</param>
    /// <param name="cos_TH2">float32 [T, H/2]: each token's position is already in it.</param>
    /// <param name="sin_TH2">float32 [T, H/2].</param>
    /// <returns>[T, N, H], contiguous.</returns>
    /// <exception cref="ArgumentException">Dtype, shape or layout of the named tensor.</exception>
    public static Tensor Rotary(Tensor x_TNH, Tensor cos_TH2, Tensor sin_TH2) => RotaryFunction.apply(x_TNH, cos_TH2, sin_TH2);
}

internal sealed class RotaryFunction : autograd.SingleTensorFunction<RotaryFunction>
{
    public override string Name => "Rotary";

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (x_TNH, cos_TH2, sin_TH2) = ((Tensor)vars[0], (Tensor)vars[1], (Tensor)vars[2]);
        ctx.save_for_backward([cos_TH2, sin_TH2]);
        return RotaryKernel.Turn(x_TNH, cos_TH2, sin_TH2, inverse: false);
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        List<Tensor> saved = ctx.get_saved_variables();
        return [RotaryKernel.Turn(grad_output.AsRows(), saved[0], saved[1], inverse: true), null!, null!];
    }
}

internal static class RotaryKernel
{
    /// <param name="into">Shape of x, which it may be; null: a new tensor.</param>
    /// <returns>What was written.</returns>
    public static Tensor Turn(Tensor x_TNH, Tensor cos_TH2, Tensor sin_TH2, bool inverse, Tensor? into = null)
    {
        x_TNH.KernelDtype();
        x_TNH.RequireShape([-1, -1, -1]);
        cos_TH2.RequireDtype(float32);
        cos_TH2.RequireShape([x_TNH.size(0), x_TNH.size(2) / 2]);
        sin_TH2.RequireDtype(float32);
        sin_TH2.RequireShape(cos_TH2.shape);
        if (TorchOps.StandIn(x_TNH))
        {
            Tensor turned = TorchOps.Rotate(x_TNH, cos_TH2, sin_TH2, inverse);
            return into is null ? turned : into.copy_(turned);
        }

        Tensor out_TNH = into ?? empty(x_TNH.shape, x_TNH.dtype, x_TNH.device);
        var args = new tn_rotary_args
        {
            device = x_TNH.KernelDevice(),
            dtype = x_TNH.KernelDtype(),
            inverse = inverse ? 1 : 0,
            tokens = x_TNH.size(0),
            heads = x_TNH.size(1),
            head_dim = x_TNH.size(2),
            x_TNH = x_TNH.View(),
            out_TNH = out_TNH.View(),
            cos_TH2 = cos_TH2.Elements(),
            sin_TH2 = sin_TH2.Elements(),
        };
        KernelException.ThrowIfFailed(TrainerKernels.tn_rotary(args, x_TNH.KernelStream()));
        return out_TNH;
    }
}
