using Trainer.Worker.Kernels;
using static Trainer.Worker.Tests.Kernels.Differentiation;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Kernels;

public sealed class LowRankLinearTests : IDisposable
{
    private readonly TorchSharp.DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    // With one scale the changes' first products are one, with dropout or another scale they are not.
    [Theory]
    [InlineData(0.0, 0.5)]
    [InlineData(0.0, 2.0)]
    [InlineData(0.25, 0.5)]
    public void Value_and_gradients_agree_with_one_product_after_another(double dropout, double otherScale)
    {
        foreach (ScalarType dtype in new[] { float32, bfloat16 })
        {
            // Outputs 0..4 and 9..11 of twelve are changed.
            Tensor x = Normal(1, 17, 10), weight = Normal(2, 12, 10), bias = Normal(3, 12);
            Tensor a = Normal(4, 3, 10), b = Normal(5, 5, 3), c = Normal(6, 2, 10), d = Normal(7, 3, 2);
            AssertClose(
                v => [Changed(v[0], v[1], v[2], dropout, Change(0, v[3], v[4], 0.5, 11), Change(9, v[5], v[6], otherScale, 12))],
                v =>
                {
                    Tensor y = v[0].matmul(v[1].t()) + v[2];
                    return [cat([y.narrow(1, 0, 5) + Added(v[0], v[3], v[4], 0.5, 11), y.narrow(1, 5, 4), y.narrow(1, 9, 3) + Added(v[0], v[5], v[6], otherScale, 12)], 1)];
                },
                dtype, Tolerance(dtype), x, weight, bias, a, b, c, d);
        }

        LowRank Change(long row, Tensor a, Tensor b, double scale, ulong seed) => new(row, a.to(float32), b.to(float32), scale, seed);

        Tensor Added(Tensor x, Tensor a, Tensor b, double scale, ulong seed)
        {
            // The mask itself, which depends on seed and place alone.
            Tensor kept = dropout == 0 ? ones_like(x) : Ops.Dropout(ones(x.shape), dropout, seed).to(x.dtype);
            return (x * kept).matmul(a.t()).matmul(b.t()) * scale;
        }
    }

    [Fact]
    public void A_frozen_weight_gets_no_gradient_and_a_frozen_input_needs_none()
    {
        Tensor x = Normal(1, 6, 8), weight = Normal(2, 4, 8), a = Normal(3, 2, 8).requires_grad_(), b = Normal(4, 4, 2).requires_grad_();
        Changed(x, weight, null, 0, new LowRank(0, a, b, 3)).sum().backward();
        Assert.Null(x.grad);
        Assert.Null(weight.grad);
        Tensor down = x.matmul(a.detach().t());
        Assert.True(LargestError(b.grad!, down.sum(0).mul(3).expand(4, 2)) < 1e-4);
        Assert.True(LargestError(a.grad!, b.detach().sum(0).mul(3).unsqueeze(1).matmul(x.sum(0).unsqueeze(0))) < 1e-4);
    }

    [Fact]
    public void Bad_arguments_are_refused_by_name()
    {
        void Refused(string message, Tensor a, Tensor b) => Assert.Contains(message, Assert.Throws<ArgumentException>(
            () => Changed(ones(3, 8), ones(5, 8), null, 0, new LowRank(0, a, b, 1))).Message, StringComparison.Ordinal);
        Refused("A_RI must be Float32", ones(2, 8).to(bfloat16), ones(5, 2));
        Refused("factors.As_SI must have shape [any, 8]", ones(2, 7), ones(5, 2));
        Refused("B_OR must have shape [any, 2]", ones(2, 8), ones(5, 3));
    }

    [Fact]
    public void Products_follow_the_factors_however_those_were_changed()
    {
        foreach (ScalarType dtype in new[] { float32, bfloat16 })
        {
            using var _ = no_grad();
            Tensor x = Normal(1, 6, 8).to(dtype), weight = zeros([4, 8], dtype), a = Normal(3, 2, 8), b = Normal(4, 4, 2);
            using var factors = new LowRankFactors([new LowRank(0, a, b, 0.5)], dtype);
            using var same = new LowRankFactors([new LowRank(0, a, b, 0.5)], dtype);
            Tensor before = Ops.Linear(x, weight, null, factors).clone();
            a.mul_(3);
            Compare();
            b.narrow(0, 1, 1).zero_();
            Compare();
            AdamWKernel.Step([new(b, zeros_like(b), zeros_like(b), ones_like(b))], lr: 0.25, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0, step: 1, gradScale: 1);
            Compare();
            Assert.True(LargestError(before, Ops.Linear(x, weight, null, factors)) > 0.1);

            void Compare()
            {
                LowRankFactors.Refresh([factors, same]);
                Tensor expected = x.to(float32).matmul(a.t()).matmul(b.t()) * 0.5;
                Assert.True(LargestError(Ops.Linear(x, weight, null, factors).to(float32), expected) < (dtype == float32 ? 1e-5 : 0.1));
                Assert.Equal(Ops.Linear(x, weight, null, factors).to(float32).data<float>().ToArray(), Ops.Linear(x, weight, null, same).to(float32).data<float>().ToArray());
            }
        }
    }

    private static Tensor Changed(Tensor x, Tensor weight, Tensor? bias, double dropout, params LowRank[] changes)
    {
        using var factors = new LowRankFactors(changes, x.dtype);
        return Ops.Linear(x, weight, bias, factors, dropout);
    }
}
