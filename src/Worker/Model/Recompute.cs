using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>
/// Activation recomputation: keeps only a block's input and runs the block again in backward. Blocks are deterministic
/// (dropout takes its seed from the context), so the gradients are bitwise the same as without.
/// </summary>
public sealed class Recompute : autograd.SingleTensorFunction<Recompute>
{
    public override string Name => nameof(Recompute);

    /// <param name="x_TD">Must require grad, or no gradient reaches the block's parameters.</param>
    public static Tensor Run(QwenBlock block, Tensor x_TD, ForwardContext context) => apply(x_TD, block, context);

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        (var x_TD, var block, var context) = ((Tensor)vars[0], (QwenBlock)vars[1], (ForwardContext)vars[2]);
        ctx.save_for_backward([x_TD, context.Cos, context.Sin, context.CuSeqlens]);
        ctx.save_data("block", block);
        ctx.save_data("attention", context.Attention);
        ctx.save_data("dropout", context.DropoutSeed);
        return block.Forward(x_TD, context);
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        List<Tensor> saved = ctx.get_saved_variables();
        var block = (QwenBlock)ctx.get_data("block");
        var context = new ForwardContext(
            saved[1], saved[2], saved[3], (Attention.AttentionBackend)ctx.get_data("attention"), (ulong)ctx.get_data("dropout"), OnlyGradients: true);
        Tensor x_TD = saved[0].detach().requires_grad_(true);
        using (enable_grad())
        {
            autograd.backward([block.Forward(x_TD, context)], [grad_output]);
        }

        return [x_TD.grad!, null!, null!];
    }
}
