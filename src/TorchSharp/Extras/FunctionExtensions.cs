namespace TorchSharp.Extras;

public static class FunctionExtensions
{
    /// <summary>Whether the gradient of forward's argument is wanted: in backward, by the running pass.</summary>
    /// <param name="ctx">The call.</param>
    /// <param name="argument">Position among all arguments of forward.</param>
    public static bool needs_input_grad(this torch.autograd.AutogradContext ctx, int argument) => ctx.NeedsGradient(argument);
}
