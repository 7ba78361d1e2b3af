using Trainer.Worker.Kernels;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Kernels;

/// <summary>The operations of GPUs by libtorch's operators, run on the CPU beside our kernels.</summary>
public sealed class TorchOpsTests
{
    private const double Epsilon = 1e-6;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void RmsNorm_and_its_gradients_agree(bool heads)
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(1);
        long[] shape = heads ? [7, 3, 16] : [7, 16];
        Tensor x = randn(shape), weight = randn(16), dy = randn(shape);
        (Tensor y, _, Tensor rstd) = RmsNormKernel.Forward(x, null, weight, Epsilon);
        (Tensor dx, Tensor? dweight) = RmsNormKernel.Backward(x, weight, rstd, dy, null, wantsWeight: true);

        (Tensor other, Tensor otherRstd) = TorchOps.RmsNorm(x, weight, Epsilon);
        (Tensor otherDx, Tensor? otherDweight) = TorchOps.RmsNormBackward(x, weight, otherRstd, dy, wantsWeight: true);
        Near(y, other);
        Near(dx, otherDx);
        Near(dweight!, otherDweight!);
        Assert.Null(TorchOps.RmsNormBackward(x, weight, otherRstd, dy, wantsWeight: false).Dweight);
    }

    [Fact]
    public void Rotary_agrees_in_both_directions()
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(2);
        Tensor x = randn(5, 3, 8), angles = randn(5, 4), cos = angles.cos(), sin = angles.sin();
        Tensor turned = Ops.Rotary(x, cos, sin);
        Near(turned, TorchOps.Rotate(x, cos, sin, inverse: false));
        Near(x, TorchOps.Rotate(turned, cos, sin, inverse: true));
    }

    [Fact]
    public void SwiGlu_and_its_gradient_agree()
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(3);
        Tensor gateUp = randn(6, 10).requires_grad_(true), dout = randn(6, 5);
        Tensor y = Ops.SwiGlu(gateUp);
        Tensor gradient = autograd.grad([y], [gateUp], [dout])[0];
        using var _ = no_grad();
        Near(y, TorchOps.SwiGlu(gateUp));
        Near(gradient, TorchOps.SwiGluBackward(gateUp, dout));
    }

    [Fact]
    public void The_norm_of_all_gradients_is_that_of_their_exact_values()
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(4);
        Tensor[] gradients = [randn(300, 40), randn(7), randn(1000)];
        foreach (ScalarType dtype in new[] { float32, bfloat16 })
        {
            Tensor[] low = [.. gradients.Select(gradient => gradient.to(dtype))];
            double exact = Math.Sqrt(low.Sum(gradient => gradient.to(float64).square().sum().ToDouble()));
            Assert.Equal(exact, TorchSharp.Extras.Fused.Norm(low).ToDouble(), 1e-5 * exact);
        }
    }

    [Fact]
    public void CrossEntropy_leaves_softmax_minus_onehot()
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(4);
        Tensor logits = randn(6, 11).requires_grad_(true), labels = tensor(new long[] { 0, 10, 3, 3, 7, 1 });
        Tensor expected = nn.functional.cross_entropy(logits, labels, reduction: nn.Reduction.Sum);
        Tensor gradient = autograd.grad([expected], [logits])[0];
        using var _ = no_grad();
        Tensor overwritten = logits.detach().clone();
        Near(expected, TorchOps.CrossEntropy(overwritten, labels, withGradient: true).to(float32));
        Near(gradient, overwritten);
        Tensor kept = logits.detach().clone();
        Near(expected, TorchOps.CrossEntropy(kept, labels, withGradient: false).to(float32));
        Near(logits, kept);
    }

    [Fact]
    public void Dropout_gives_one_mask_for_a_seed_and_keeps_the_mean()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = ones(10_000);
        Tensor first = TorchOps.Dropout(x, 0.25, 5), again = TorchOps.Dropout(x, 0.25, 5), other = TorchOps.Dropout(x, 0.25, 6);
        Assert.Equal(0, (first - again).abs().max().ToDouble());
        Assert.NotEqual(0, (first - other).abs().max().ToDouble());
        Assert.Equal(1, first.mean().ToDouble(), 0.03);
        Assert.Equal(4.0 / 3, first.max().ToDouble(), 1e-5);
    }

    private static void Near(Tensor expected, Tensor actual)
    {
        Assert.Equal(expected.shape, actual.shape);
        using var _ = no_grad();
        double error = (expected - actual).abs().max().ToDouble();
        Assert.True(error <= 1e-5 * Math.Max(1, expected.abs().max().ToDouble()), $"error {error}");
    }
}
