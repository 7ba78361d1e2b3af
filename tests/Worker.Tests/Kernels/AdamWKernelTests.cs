using TorchSharp.Extras;
using Trainer.Worker.Kernels;
using static Trainer.Worker.Tests.Kernels.Differentiation;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Kernels;

public sealed class AdamWKernelTests : IDisposable
{
    private readonly TorchSharp.DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Fact]
    public void Steps_follow_the_formula_in_float64()
    {
        Tensor master = Normal(1, 37, 11), m = zeros(37, 11), v = zeros(37, 11), copy = zeros(37, 11, bfloat16);
        Tensor p = master.to(float64).clone(), m64 = zeros(37, 11, float64), v64 = zeros(37, 11, float64);
        for (int step = 1; step <= 5; step++)
        {
            Tensor gradient = Normal((ulong)step, 37, 11);
            AdamWKernel.Step(master, m, v, gradient, 0.01, 0.9, 0.95, 1e-8, 0.1, step, 0.5, copy);
            Tensor g = gradient.to(float64) * 0.5;
            p = p * (1 - 0.01 * 0.1);
            m64 = m64 * 0.9 + g * 0.1;
            v64 = v64 * 0.95 + g * g * 0.05;
            p -= m64 / (1 - Math.Pow(0.9, step)) * 0.01 / ((v64 / (1 - Math.Pow(0.95, step))).sqrt() + 1e-8);
        }
        Assert.True(LargestError(master.to(float64), p) < 1e-6);
        Assert.True(LargestError(m.to(float64), m64) < 1e-6);
        Assert.True(LargestError(v.to(float64), v64) < 1e-6);
        Assert.True(copy.SameAs(master.to(bfloat16)));
    }

    [Fact]
    public void A_gradient_that_is_not_contiguous_counts_by_its_indices()
    {
        Tensor Step(Tensor gradient)
        {
            Tensor master = zeros(4, 6);
            AdamWKernel.Step(master, zeros(4, 6), zeros(4, 6), gradient, 0.01, 0.9, 0.95, 1, 0, 1, 1, null);
            return master;
        }
        Tensor gradient = Normal(1, 6, 4).t();
        Assert.True(Step(gradient).SameAs(Step(gradient.contiguous())));
    }

    [Fact]
    public void Squares_and_sums_agree_with_float64()
    {
        Tensor x = Normal(1, 300, 301), bf16 = x.to(bfloat16), sum = Normal(2, 300, 301), expected = sum + bf16.to(float32);
        Assert.Equal(x.to(float64).pow(2).sum().ToDouble(), AdamWKernel.SumOfSquares(x), 1e-6);
        Assert.Equal(bf16.to(float64).pow(2).sum().ToDouble(), AdamWKernel.SumOfSquares(bf16), 1e-6);
        AdamWKernel.Accumulate(sum, bf16);
        Assert.True(sum.SameAs(expected));
    }

    [Fact]
    public void Bad_tensors_are_refused_by_name()
    {
        Tensor x = ones(4, 6);
        void Refused(string message, Action action) =>
            Assert.Contains(message, Assert.ThrowsAny<Exception>(action).Message, StringComparison.Ordinal);
        void Step(Tensor p, Tensor m, Tensor g, Tensor? copy, long step = 1) =>
            AdamWKernel.Step(p, m, x.clone(), g, 0.01, 0.9, 0.95, 1e-8, 0, step, 1, copy);
        Refused("master must be Float32", () => Step(x.to(bfloat16), x, x, null));
        Refused("master must be contiguous", () => Step(ones(6, 4).t(), x, x, null));
        Refused("expAvg must have shape [4, 6]", () => Step(x, ones(4, 5), x, null));
        Refused("grad must be float32 or bfloat16", () => Step(x, x.clone(), x.to(float64), null));
        Refused("bf16Copy must be BFloat16", () => Step(x, x.clone(), x.clone(), x.clone()));
        Refused("step: must be at least 1", () => Step(x, x.clone(), x.clone(), null, 0));
        Refused("sum_f32 must be Float32", () => AdamWKernel.Accumulate(x.to(bfloat16), x));
        Refused("addend must have shape [4, 6]", () => AdamWKernel.Accumulate(x, ones(4, 5)));
    }
}
