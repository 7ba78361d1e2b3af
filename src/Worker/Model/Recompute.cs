using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>
/// Activation recomputation: keeps only the input of a function and runs it again in backward. The function must be
/// deterministic (ours are; dropout takes its seed as an argument), so the gradients are bitwise the same as without.
/// </summary>
public sealed class Recompute : autograd.SingleTensorFunction<Recompute>
{
    public override string Name => nameof(Recompute);

    /// <param name="input">Must require grad, or no gradient reaches the function's parameters.</param>
    public static Tensor Run(Func<Tensor, Tensor> function, Tensor input) => apply(input, function);

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var input = (Tensor)vars[0];
        var function = (Func<Tensor, Tensor>)vars[1];
        ctx.save_for_backward([input]);
        ctx.save_data("function", function);
        using var _ = no_grad();
        return function(input);
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        using DisposeScope scope = NewDisposeScope();
        var function = (Func<Tensor, Tensor>)ctx.get_data("function");
        Tensor input = ctx.get_saved_variables()[0].detach().requires_grad_(true);
        using (enable_grad())
        {
            Tensor output = function(input);
            autograd.backward([output], [grad_output]);
        }

        return [input.grad!.MoveToOuterDisposeScope(), null!];
    }
}
