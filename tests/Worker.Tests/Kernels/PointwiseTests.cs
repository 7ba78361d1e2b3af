using TorchSharp.Extras;
using Trainer.Worker.Kernels;
using static Trainer.Worker.Tests.Kernels.Differentiation;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Kernels;

/// <summary>Rotary, SwiGLU, dropout.</summary>
public sealed class PointwiseTests : IDisposable
{
    private readonly TorchSharp.DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Fact]
    public void Rotary_and_its_gradient_agree_with_rotate_half()
    {
        foreach (ScalarType dtype in new[] { float32, bfloat16 })
        {
            Tensor angles = Normal(4, 9, 16), cos = angles.cos(), sin = angles.sin();
            Tensor Reference(Tensor x)
            {
                Tensor cos_T1H = cat([cos, cos], -1).unsqueeze(1).to(x.dtype), sin_T1H = cat([sin, sin], -1).unsqueeze(1).to(x.dtype);
                Tensor rotated = cat([-x.narrow(2, 16, 16), x.narrow(2, 0, 16)], -1);
                return x * cos_T1H + rotated * sin_T1H;
            }
            AssertClose(x => [Ops.Rotary(x[0], cos, sin)], x => [Reference(x[0])], dtype, Tolerance(dtype), Normal(1, 9, 3, 32));
        }
    }

    [Fact]
    public void Rotary_of_a_slice_is_read_in_place()
    {
        Tensor angles = Normal(4, 5, 4), cos = angles.cos(), sin = angles.sin(), fused = Normal(1, 5, 40);
        Tensor slice = fused.narrow(1, 8, 16).view(5, 2, 8);
        Assert.True(Ops.Rotary(slice, cos, sin).SameAs(Ops.Rotary(slice.contiguous(), cos, sin)));
        Assert.Contains("cos_TH2 must have shape [5, 4]",
            Assert.Throws<ArgumentException>(() => Ops.Rotary(slice, cos.narrow(0, 0, 4), sin)).Message, StringComparison.Ordinal);
        Assert.Contains("sin_TH2 must be Float32",
            Assert.Throws<ArgumentException>(() => Ops.Rotary(slice, cos, sin.to(bfloat16))).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(50)]
    public void SwiGlu_and_its_gradient_agree_with_float64(double deviation)
    {
        foreach (ScalarType dtype in new[] { float32, bfloat16 })
        {
            AssertClose(x => [Ops.SwiGlu(x[0])], x => [functional(x[0])], dtype, Tolerance(dtype), Normal(1, 7, 2 * 33) * deviation);
        }
        static Tensor functional(Tensor x) => x.narrow(1, 0, 33) * x.narrow(1, 0, 33).sigmoid() * x.narrow(1, 33, 33);
    }

    [Fact]
    public void SwiGlu_refuses_an_odd_width_by_name() => Assert.Contains("gateUp_T2F must have an even number of columns",
        Assert.Throws<ArgumentException>(() => Ops.SwiGlu(ones(3, 5))).Message, StringComparison.Ordinal);

    [Fact]
    public void Dropout_masks_its_gradient_as_its_value_and_repeats_by_seed()
    {
        Tensor x = ones(100, 300).requires_grad_();
        Tensor y = Ops.Dropout(x, 0.25, 7);
        Tensor upstream = Normal(2, 100, 300);
        y.backward([upstream]);
        Assert.True(x.grad!.SameAs(upstream * y.detach()));
        Assert.True(y.SameAs(Ops.Dropout(x, 0.25, 7)));
        Assert.False(y.SameAs(Ops.Dropout(x, 0.25, 8)));
        // Four standard deviations of a binomial count of 30,000.
        Assert.InRange(y.eq(0).sum().ToInt64(), 7500 - 300, 7500 + 300);
        Assert.Same(x, Ops.Dropout(x, 0, 7));
        Assert.Contains("probability: must be in [0, 1)",
            Assert.Throws<KernelException>(() => Ops.Dropout(x, 1, 7)).Message, StringComparison.Ordinal);
    }
}
