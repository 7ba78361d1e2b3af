using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

public static partial class Ops
{
    /// <summary>gate * sigmoid(gate) * up.</summary>
    /// <param name="gateUp_T2F">float32 or bfloat16: the gate in columns 0..F-1, up in F..2F-1; the last dimension contiguous.</param>
    /// <returns>[T, F], contiguous.</returns>
    /// <exception cref="ArgumentException">Dtype, shape or layout of the named tensor.</exception>
    public static Tensor SwiGlu(Tensor gateUp_T2F) => SwiGluFunction.apply(gateUp_T2F);
}

internal sealed class SwiGluFunction : autograd.SingleTensorFunction<SwiGluFunction>
{
    public override string Name => "SwiGlu";

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var gateUp_T2F = (Tensor)vars[0];
        gateUp_T2F.KernelDtype();
        gateUp_T2F.RequireShape([-1, -1]);
        RequireEvenColumns(gateUp_T2F);
        if (TorchOps.StandIn(gateUp_T2F))
        {
            ctx.save_for_backward([gateUp_T2F]);
            return TorchOps.SwiGlu(gateUp_T2F);
        }

        tn_tensor gateUp = gateUp_T2F.View();
        Tensor out_TF = empty(gateUp_T2F.size(0), gateUp_T2F.size(1) / 2, gateUp_T2F.dtype, gateUp_T2F.device);
        var args = new tn_swiglu_forward_args
        {
            device = gateUp_T2F.KernelDevice(),
            dtype = gateUp_T2F.KernelDtype(),
            tokens = out_TF.size(0),
            width = out_TF.size(1),
            gate_up_T2F = gateUp.data,
            gate_up_stride = gateUp.token_stride,
            out_TF = out_TF.Elements(),
            out_stride = out_TF.size(1),
        };
        KernelException.ThrowIfFailed(TrainerKernels.tn_swiglu_forward(args, gateUp_T2F.KernelStream()));
        ctx.save_for_backward([gateUp_T2F]);
        return out_TF;
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        Tensor gateUp_T2F = ctx.get_saved_variables()[0];
        if (TorchOps.StandIn(gateUp_T2F))
        {
            return [TorchOps.SwiGluBackward(gateUp_T2F, grad_output)];
        }

        Tensor dgateUp_T2F = empty(gateUp_T2F.shape, gateUp_T2F.dtype, gateUp_T2F.device);
        tn_tensor gateUp = gateUp_T2F.View(), dout = grad_output.AsRows().View();
        var args = new tn_swiglu_backward_args
        {
            device = gateUp_T2F.KernelDevice(),
            dtype = gateUp_T2F.KernelDtype(),
            tokens = gateUp_T2F.size(0),
            width = gateUp_T2F.size(1) / 2,
            gate_up_T2F = gateUp.data,
            gate_up_stride = gateUp.token_stride,
            dout_TF = dout.data,
            dout_stride = dout.token_stride,
            dgate_up_T2F = dgateUp_T2F.Elements(),
            dgate_up_stride = dgateUp_T2F.size(1),
        };
        KernelException.ThrowIfFailed(TrainerKernels.tn_swiglu_backward(args, gateUp_T2F.KernelStream()));
        return [dgateUp_T2F];
    }

    private static void RequireEvenColumns(Tensor gateUp_T2F)
    {
        if (gateUp_T2F.size(1) % 2 != 0)
        {
            throw new ArgumentException($"gateUp_T2F must have an even number of columns: {gateUp_T2F}", nameof(gateUp_T2F));
        }
    }
}
