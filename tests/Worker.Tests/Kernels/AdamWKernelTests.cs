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
            AdamWKernel.Step([new(master, m, v, gradient, copy)], 0.01, 0.9, 0.95, 1e-8, 0.1, step, 0.5);
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
    public void Many_tensors_at_once_have_the_bits_of_one_after_another()
    {
        AdamWTensors[] apart = [.. Enumerable.Range(0, 60).Select(i => new AdamWTensors(
            Normal((ulong)i, i % 7, 13), zeros(i % 7, 13), zeros(i % 7, 13), Normal((ulong)(100 + i), i % 7, 13).to(i % 2 == 0 ? float32 : bfloat16), i % 3 == 0 ? zeros(i % 7, 13, bfloat16) : null))];
        AdamWTensors[] together = [.. apart.Select(each => new AdamWTensors(each.Master.clone(), each.ExpAvg.clone(), each.ExpAvgSq.clone(), each.Grad, each.Bf16Copy?.clone()))];
        for (int step = 1; step <= 2; step++)
        {
            AdamWKernel.Step(together, 0.01, 0.9, 0.95, 1e-8, 0.1, step, 0.5);
            foreach (AdamWTensors each in apart)
            {
                AdamWKernel.Step([each], 0.01, 0.9, 0.95, 1e-8, 0.1, step, 0.5);
            }
        }

        Assert.All(apart.Zip(together), pair =>
        {
            Assert.True(pair.First.Master.SameAs(pair.Second.Master));
            Assert.True(pair.First.ExpAvgSq.SameAs(pair.Second.ExpAvgSq));
            Assert.True(pair.First.Bf16Copy is null || pair.First.Bf16Copy.SameAs(pair.Second.Bf16Copy!));
        });
        AdamWKernel.Step([], 0.01, 0.9, 0.95, 1e-8, 0.1, 1, 0.5);
    }

    [Fact]
    public void A_bad_tensor_among_many_leaves_all_as_they_were()
    {
        Tensor good = ones(4), bad = ones(4);
        Assert.Throws<KernelException>(() => AdamWKernel.Step([new(good, zeros(4), zeros(4), ones(4)), new(bad, zeros(4), zeros(4), ones(4))], 0.01, 0.9, 0.95, 1e-8, 0, 0, 1));
        Assert.Throws<ArgumentException>(() => AdamWKernel.Step([new(good, zeros(4), zeros(4), ones(4)), new(bad, zeros(5), zeros(4), ones(4))], 0.01, 0.9, 0.95, 1e-8, 0, 1, 1));
        Assert.True(good.SameAs(ones(4)));
    }

    [Fact]
    public void A_gradient_that_is_not_contiguous_counts_by_its_indices()
    {
        Tensor Step(Tensor gradient)
        {
            Tensor master = zeros(4, 6);
            AdamWKernel.Step([new(master, zeros(4, 6), zeros(4, 6), gradient)], 0.01, 0.9, 0.95, 1, 0, 1, 1);
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
            AdamWKernel.Step([new(p, m, x.clone(), g, copy)], 0.01, 0.9, 0.95, 1e-8, 0, step, 1);
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
