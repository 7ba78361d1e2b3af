using Trainer.Worker.Kernels;
using static Trainer.Worker.Tests.Kernels.Differentiation;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Kernels;

public sealed class RmsNormTests : IDisposable
{
    private readonly TorchSharp.DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Theory]
    [InlineData(new long[] { 64 })]
    [InlineData(new long[] { 5, 100 })]
    [InlineData(new long[] { 5, 3, 16 })]
    [InlineData(new long[] { 2, 3, 4, 8 })]
    public void Norm_and_its_gradients_agree_with_float64(long[] shape)
    {
        foreach (ScalarType dtype in new[] { float32, bfloat16 })
        {
            AssertClose(x => [Ops.RmsNorm(x[0], x[1], 1e-6)], x => [Reference(x[0], x[1])], dtype, Tolerance(dtype),
                Normal(1, shape), Normal(2, shape[^1]));
        }
    }

    [Fact]
    public void Norm_of_the_heads_of_a_fused_projection_agrees_with_float64()
    {
        static Tensor Heads(Tensor x) => x.narrow(1, 16, 64).view(-1, 4, 16);
        AssertClose(x => [Ops.RmsNorm(Heads(x[0]), x[1], 1e-6)], x => [Reference(Heads(x[0]), x[1])], float32, 1e-5,
            Normal(1, 7, 112), Normal(2, 16));
    }

    [Fact]
    public void Norm_of_a_sum_and_all_its_gradients_agree_with_float64()
    {
        static Tensor[] Operation(Tensor[] x)
        {
            (Tensor normed, Tensor sum) = Ops.AddRmsNorm(x[0], x[1], x[2], 1e-6);
            return [normed, sum];
        }
        AssertClose(Operation, x => [Reference(x[0] + x[1], x[2]), x[0] + x[1]], float32, 1e-5,
            Normal(1, 9, 40), Normal(2, 9, 40), Normal(3, 40));
    }

    [Fact]
    public void A_float32_weight_serves_bfloat16_rows()
    {
        Tensor x = Normal(1, 6, 32).to(bfloat16), weight = Normal(2, 32);
        Tensor y = Ops.RmsNorm(x, weight, 1e-6);
        Assert.Equal(bfloat16, y.dtype);
        Assert.True(LargestError(y.to(float64), Reference(x.to(float64), weight.to(float64))) < 0.03);
    }

    [Fact]
    public void An_unused_sum_or_norm_passes_the_other_gradient()
    {
        foreach (int used in new[] { 0, 1 })
        {
            AssertClose(
                x => [used == 0 ? Ops.AddRmsNorm(x[0], x[1], x[2], 1e-6).Normed : Ops.AddRmsNorm(x[0], x[1], x[2], 1e-6).Sum + 0 * x[2].sum()],
                x => [used == 0 ? Reference(x[0] + x[1], x[2]) : x[0] + x[1] + 0 * x[2].sum()], float32, 1e-5,
                Normal(1, 9, 40), Normal(2, 9, 40), Normal(3, 40));
        }
    }

    [Fact]
    public void Bad_tensors_are_refused_by_name()
    {
        Tensor x = Normal(1, 4, 8);
        void Refused(string message, Action action) =>
            Assert.Contains(message, Assert.ThrowsAny<Exception>(action).Message, StringComparison.Ordinal);
        Refused("x must be float32 or bfloat16", () => Ops.RmsNorm(x.to(float64), ones(8), 1e-6));
        Refused("weight must have shape [8]", () => Ops.RmsNorm(x, ones(7), 1e-6));
        Refused("weight must be float32 or bfloat16", () => Ops.RmsNorm(x, ones(8).to(float64), 1e-6));
        Refused("epsilon: must not be negative", () => Ops.RmsNorm(x, ones(8), -1));
        Refused("residual must have shape [4, 8]", () => Ops.AddRmsNorm(x, ones(3, 8), ones(8), 1e-6));
        Refused("residual must be Float32", () => Ops.AddRmsNorm(x, ones(4, 8).to(bfloat16), ones(8), 1e-6));
    }

    private static Tensor Reference(Tensor x, Tensor weight) => x * (x.pow(2).mean([-1], true) + 1e-6).rsqrt() * weight;
}
