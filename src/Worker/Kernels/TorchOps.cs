using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

/// <summary>
/// The arithmetic of our kernels by libtorch's operators: on GPUs, what our library has no kernel for, and everything where it does
/// not run on the GPU at all. Sums are float32; the functions that call these own the gradients.
/// </summary>
internal static class TorchOps
{
    private static readonly Lazy<bool> s_kernelsRunOnGpu = new(() => KernelFacts.Probe().RunsOnGpu);

    /// <summary>Whether what is done to tensors like this one is left to libtorch.</summary>
    public static bool StandIn(Tensor tensor) => tensor.KernelDevice() == KernelDevice.Cuda && !s_kernelsRunOnGpu.Value;

    /// <returns>Rstd has the shape of x with 1 as its last dimension.</returns>
    public static (Tensor Y, Tensor Rstd) RmsNorm(Tensor x, Tensor weight, double epsilon)
    {
        if (IsFused(x, weight))
        {
            return Fused.RmsNorm(x, weight, epsilon);
        }

        Tensor wide = x.to(float32);
        Tensor rstd = (wide.square().mean([-1], keepdim: true) + epsilon).rsqrt();
        return ((wide * rstd * weight).to(x.dtype), rstd);
    }

    /// <returns>Dweight is null unless wanted.</returns>
    public static (Tensor Dx, Tensor? Dweight) RmsNormBackward(Tensor x, Tensor weight, Tensor rstd, Tensor dy, bool wantsWeight)
    {
        if (IsFused(x, weight))
        {
            return Fused.RmsNormBackward(dy, x, rstd, weight, wantsWeight);
        }

        Tensor normed = x.to(float32) * rstd, scaled = dy.to(float32) * weight;
        Tensor dx = (scaled - (normed * (scaled * normed).mean([-1], keepdim: true))) * rstd;
        long[] rows = x.Dimensions == 3 ? [0, 1] : [0];
        return (dx.to(x.dtype), wantsWeight ? (dy.to(float32) * normed).sum(rows).to(weight.dtype) : null);
    }

    public static Tensor Rotate(Tensor x_TNH, Tensor cos_TH2, Tensor sin_TH2, bool inverse)
    {
        long half = x_TNH.size(2) / 2;
        Tensor wide = x_TNH.to(float32), cos = cos_TH2.unsqueeze(1), sin = sin_TH2.unsqueeze(1);
        Tensor first = wide.narrow(2, 0, half), second = wide.narrow(2, half, half);
        int sign = inverse ? -1 : 1;
        return cat([(first * cos).addcmul_(second, sin, -sign), (second * cos).addcmul_(first, sin, sign)], 2).to(x_TNH.dtype);
    }

    public static Tensor SwiGlu(Tensor gateUp_T2F)
    {
        long width = gateUp_T2F.size(1) / 2;
        return gateUp_T2F.narrow(1, 0, width).silu().mul_(gateUp_T2F.narrow(1, width, width));
    }

    public static Tensor SwiGluBackward(Tensor gateUp_T2F, Tensor dout_TF)
    {
        long width = gateUp_T2F.size(1) / 2;
        Tensor gate = gateUp_T2F.narrow(1, 0, width), up = gateUp_T2F.narrow(1, width, width);
        Tensor result = empty(gateUp_T2F.shape, gateUp_T2F.dtype, gateUp_T2F.device);
        Fused.SiluBackward(dout_TF * up, gate, result.narrow(1, 0, width));
        Fused.Multiply(dout_TF, gate.silu(), result.narrow(1, width, width));
        return result;
    }

    /// <summary>The sum of the rows' cross-entropies, a scalar. With a gradient, logits become softmax - onehot.</summary>
    public static Tensor CrossEntropy(Tensor logits_CV, Tensor labels_C, bool withGradient)
    {
        Tensor labels_C1 = labels_C.unsqueeze(1);
        Tensor logs_CV = logits_CV.log_softmax(1, float32);
        Tensor picked_C1 = logs_CV.gather(1, labels_C1);
        if (withGradient)
        {
            Fused.Exponential(logs_CV, logits_CV);
            logits_CV.scatter_(1, labels_C1, (picked_C1.exp() - 1).to(logits_CV.dtype));
        }

        return -picked_C1.sum(float64);
    }

    /// <summary>One step on a master and its moments, outside autograd.</summary>
    public static void AdamW(Tensor master, Tensor expAvg, Tensor expAvgSq, Tensor gradient, double learningRate, double beta1, double beta2,
        double epsilon, double weightDecay, long step, double gradientScale)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor steps = full([], (float)step, float32, master.device);
        Fused.AdamW([master], [gradient.to(float32) * gradientScale], [expAvg], [expAvgSq], [steps], learningRate, beta1, beta2, weightDecay, epsilon);
    }

    /// <summary>The same mask for the same seed, shape and kind of device.</summary>
    public static Tensor Dropout(Tensor x, double probability, ulong seed)
    {
        using var generator = new Generator(seed, x.device);
        Tensor keep = empty(x.shape, x.dtype, x.device).bernoulli_(1 - probability, generator);
        return keep.mul_(x).div_(1 - probability);
    }

    private static bool IsFused(Tensor x, Tensor weight) => x.device_type == DeviceType.CUDA && x.dtype == weight.dtype && Fused.HasRmsNorm;
}
