using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

/// <summary>The optimizer's arithmetic on whole tensors, in place and outside autograd.</summary>
public static class AdamWKernel
{
    /// <summary>One step of torch.optim.AdamW on float32 master weights.</summary>
    /// <param name="master">float32, contiguous, updated.</param>
    /// <param name="expAvg">First moment: float32, contiguous, shape of master, updated.</param>
    /// <param name="expAvgSq">Second moment: float32, contiguous, shape of master, updated.</param>
    /// <param name="grad">float32 or bfloat16, shape of master.</param>
    /// <param name="lr">Learning rate, at least 0.</param>
    /// <param name="beta1">In [0, 1).</param>
    /// <param name="beta2">In [0, 1).</param>
    /// <param name="eps">Added to the denominator.</param>
    /// <param name="weightDecay">Decoupled: master shrinks by lr * weightDecay first.</param>
    /// <param name="step">This step's number, from 1.</param>
    /// <param name="gradScale">The gradient counts times this: clipping.</param>
    /// <param name="bf16Copy">bfloat16, contiguous, shape of master: receives the new weights. May be null.</param>
    /// <exception cref="ArgumentException">Dtype, shape or layout of the named tensor.</exception>
    /// <exception cref="KernelException">A number is out of range.</exception>
    public static void Step(Tensor master, Tensor expAvg, Tensor expAvgSq, Tensor grad, double lr, double beta1, double beta2,
        double eps, double weightDecay, long step, double gradScale, Tensor? bf16Copy)
    {
        master.RequireDtype(float32);
        expAvg.RequireDtype(float32);
        expAvg.RequireShape(master.shape);
        expAvgSq.RequireDtype(float32);
        expAvgSq.RequireShape(master.shape);
        grad.RequireShape(master.shape);
        bf16Copy?.RequireDtype(bfloat16);
        bf16Copy?.RequireShape(master.shape);
        if (TorchOps.StandIn(master))
        {
            TorchOps.AdamW(master, expAvg, expAvgSq, grad, lr, beta1, beta2, eps, weightDecay, step, gradScale);
            bf16Copy?.copy_(master);
            return;
        }

        using Tensor? gradCopy = grad.is_contiguous() ? null : grad.contiguous();
        var args = new tn_adamw_args
        {
            device = master.KernelDevice(),
            gradient_dtype = grad.KernelDtype(),
            count = master.NumberOfElements,
            parameter = master.Elements(),
            first_moment = expAvg.Elements(),
            second_moment = expAvgSq.Elements(),
            gradient = (gradCopy ?? grad).DataPointer,
            bfloat16_copy = bf16Copy?.Elements() ?? 0,
            learning_rate = lr,
            beta1 = beta1,
            beta2 = beta2,
            epsilon = eps,
            weight_decay = weightDecay,
            gradient_scale = gradScale,
            step = step,
        };
        KernelException.ThrowIfFailed(TrainerKernels.tn_adamw(args, master.KernelStream()));
        master.BumpVersion();
        bf16Copy?.BumpVersion();
    }

    /// <summary>Accumulated in float64, in an order that does not depend on the number of threads.</summary>
    /// <param name="grad">float32 or bfloat16.</param>
    public static double SumOfSquares(Tensor grad)
    {
        if (grad.KernelDevice() == KernelDevice.Cuda)
        {
            using TorchSharp.DisposeScope scope = NewDisposeScope();
            return grad.to(float64).square().sum().ToDouble();
        }

        using Tensor? copy = grad.is_contiguous() ? null : grad.contiguous();
        KernelException.ThrowIfFailed(TrainerKernels.tn_sum_of_squares(
            grad.KernelDevice(), grad.KernelDtype(), grad.NumberOfElements, (copy ?? grad).DataPointer, out double sum, 0));
        return sum;
    }

    /// <summary>sum += addend.</summary>
    /// <param name="sum_f32">float32, contiguous.</param>
    /// <param name="addend">float32 or bfloat16, shape of sum.</param>
    public static void Accumulate(Tensor sum_f32, Tensor addend)
    {
        sum_f32.RequireDtype(float32);
        addend.RequireShape(sum_f32.shape);
        if (TorchOps.StandIn(sum_f32))
        {
            sum_f32.add_(addend);
            return;
        }

        using Tensor? copy = addend.is_contiguous() ? null : addend.contiguous();
        KernelException.ThrowIfFailed(TrainerKernels.tn_accumulate(sum_f32.KernelDevice(), addend.KernelDtype(),
            addend.NumberOfElements, sum_f32.Elements(), (copy ?? addend).DataPointer, sum_f32.KernelStream()));
    }
}
