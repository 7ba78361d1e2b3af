using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

/// <summary>A trained tensor as the optimizer sees it.</summary>
/// <param name="Master">float32, contiguous, updated.</param>
/// <param name="ExpAvg">First moment: float32, contiguous, shape of master, updated.</param>
/// <param name="ExpAvgSq">Second moment: float32, contiguous, shape of master, updated.</param>
/// <param name="Grad">float32 or bfloat16, shape of master.</param>
/// <param name="Bf16Copy">bfloat16, contiguous, shape of master: receives the new weights. May be null.</param>
public readonly record struct AdamWTensors(Tensor Master, Tensor ExpAvg, Tensor ExpAvgSq, Tensor Grad, Tensor? Bf16Copy = null);

/// <summary>The optimizer's arithmetic on whole tensors, in place and outside autograd.</summary>
public static class AdamWKernel
{
    /// <summary>One step of torch.optim.AdamW on float32 master weights, of all tensors in few launches.</summary>
    /// <param name="tensors">Of one device.</param>
    /// <param name="lr">Learning rate, at least 0.</param>
    /// <param name="beta1">In [0, 1).</param>
    /// <param name="beta2">In [0, 1).</param>
    /// <param name="eps">Added to the denominator.</param>
    /// <param name="weightDecay">Decoupled: master shrinks by lr * weightDecay first.</param>
    /// <param name="step">This step's number, from 1.</param>
    /// <param name="gradScale">The gradient counts times this: clipping.</param>
    /// <exception cref="ArgumentException">Dtype, shape or layout of the named tensor.</exception>
    /// <exception cref="KernelException">A number is out of range.</exception>
    public static unsafe void Step(IReadOnlyList<AdamWTensors> tensors, double lr, double beta1, double beta2, double eps, double weightDecay, long step, double gradScale)
    {
        if (tensors.Count == 0)
        {
            return;
        }

        using TorchSharp.DisposeScope scope = NewDisposeScope();
        var all = new tn_adamw_args[tensors.Count];
        for (int i = 0; i < all.Length; i++)
        {
            (Tensor master, Tensor expAvg, Tensor expAvgSq, Tensor grad, Tensor? bf16Copy) = tensors[i];
            long[] shape = master.shape;
            master.RequireDtype(float32);
            expAvg.RequireDtype(float32);
            expAvg.RequireShape(shape);
            expAvgSq.RequireDtype(float32);
            expAvgSq.RequireShape(shape);
            grad.RequireShape(shape);
            bf16Copy?.RequireDtype(bfloat16);
            bf16Copy?.RequireShape(shape);
            all[i] = new tn_adamw_args
            {
                device = master.KernelDevice(),
                gradient_dtype = grad.KernelDtype(),
                count = master.NumberOfElements,
                parameter = master.Elements(),
                first_moment = expAvg.Elements(),
                second_moment = expAvgSq.Elements(),
                gradient = grad.contiguous().DataPointer,
                bfloat16_copy = bf16Copy?.Elements() ?? 0,
                learning_rate = lr,
                beta1 = beta1,
                beta2 = beta2,
                epsilon = eps,
                weight_decay = weightDecay,
                gradient_scale = gradScale,
                step = step,
            };
        }

        if (TorchOps.StandIn(tensors[0].Master))
        {
            foreach ((Tensor master, Tensor expAvg, Tensor expAvgSq, Tensor grad, Tensor? bf16Copy) in tensors)
            {
                TorchOps.AdamW(master, expAvg, expAvgSq, grad, lr, beta1, beta2, eps, weightDecay, step, gradScale);
                bf16Copy?.copy_(master);
            }

            return;
        }

        fixed (tn_adamw_args* first = all)
        {
            KernelException.ThrowIfFailed(TrainerKernels.tn_adamw_each(first, all.Length, tensors[0].Master.KernelStream()));
        }

        foreach (AdamWTensors each in tensors)
        {
            each.Master.BumpVersion();
            each.Bf16Copy?.BumpVersion();
        }
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
