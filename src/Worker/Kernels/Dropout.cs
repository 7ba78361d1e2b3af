using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

public static partial class Ops
{
    /// <summary>Zeroes elements with the probability and divides the rest by 1 - probability. The mask is a pure function of
    /// seed and position (another one on GPUs), so recomputing forward gives the same one.</summary>
    /// <param name="x">float32 or bfloat16.</param>
    /// <param name="probability">Of dropping, in [0, 1); 0 gives x itself.</param>
    /// <param name="seed">Another for each layer and step.</param>
    /// <returns>The shape of x, contiguous.</returns>
    /// <exception cref="KernelException">The probability is out of range.</exception>
    public static Tensor Dropout(Tensor x, double probability, ulong seed) =>
        probability == 0 ? x : DropoutFunction.apply(x, probability, seed);
}

internal sealed class DropoutFunction : autograd.SingleTensorFunction<DropoutFunction>
{
    public override string Name => "Dropout";

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (x, probability, seed) = ((Tensor)vars[0], (double)vars[1], (ulong)vars[2]);
        ctx.save_data(nameof(probability), probability);
        ctx.save_data(nameof(seed), seed);
        return Drop(x, probability, seed);
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output) =>
        [Drop(grad_output, (double)ctx.get_data("probability"), (ulong)ctx.get_data("seed")), null!, null!];

    /// <summary>x itself where nothing is dropped.</summary>
    public static Tensor Drop(Tensor x, double probability, ulong seed)
    {
        if (probability == 0)
        {
            return x;
        }

        if (x.KernelDevice() == KernelDevice.Cuda)
        {
            return TorchOps.Dropout(x, probability, seed);
        }

        Tensor y = empty(x.shape, x.dtype, x.device);
        var args = new tn_dropout_args
        {
            device = x.KernelDevice(),
            dtype = x.KernelDtype(),
            probability = (float)probability,
            count = x.NumberOfElements,
            x = x.contiguous().DataPointer,
            y = y.DataPointer,
            seed = seed,
        };
        KernelException.ThrowIfFailed(TrainerKernels.tn_dropout(args, 0));
        return y;
    }
}
