using TorchSharp.Extras;
using Trainer.Worker.Kernels;
using static Trainer.Worker.Tests.Kernels.Differentiation;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Kernels;

public sealed class LinearTests : IDisposable
{
    private readonly TorchSharp.DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Theory]
    [InlineData(1, 1, 1)]
    [InlineData(7, 16, 24)]
    [InlineData(113, 37, 150)]
    [InlineData(0, 8, 5)]
    public void Value_and_gradients_agree_with_float64(int tokens, int inputs, int outputs)
    {
        foreach (ScalarType dtype in new[] { float32, bfloat16 })
        {
            Tensor x = Normal(1, tokens, inputs), weight = Normal(2, outputs, inputs), bias = Normal(3, outputs);
            AssertClose(v => [Ops.Linear(v[0], v[1], v[2])], v => [v[0].matmul(v[1].t()) + v[2]], dtype, Tolerance(dtype), x, weight, bias);
            AssertClose(v => [Ops.Linear(v[0], v[1])], v => [v[0].matmul(v[1].t())], dtype, Tolerance(dtype), x, weight);
        }
    }

    [Fact]
    public void Columns_of_a_wider_tensor_are_read_in_place_and_any_other_layout_is_copied()
    {
        Tensor weight = Normal(2, 6, 8);
        AssertClose(v => [Ops.Linear(v[0].narrow(1, 3, 8), v[1])], v => [v[0].narrow(1, 3, 8).matmul(v[1].t())],
            float32, 1e-5, Normal(1, 5, 20), weight);
        AssertClose(v => [Ops.Linear(v[0].t(), v[1])], v => [v[0].t().matmul(v[1].t())], float32, 1e-5, Normal(1, 8, 5), weight);
        AssertClose(v => [Ops.Linear(v[0], v[1]).sum()], v => [v[0].matmul(v[1].t()).sum()], float32, 1e-5, Normal(1, 5, 8), weight);
    }

    [Fact]
    public void A_frozen_weight_gets_no_gradient_and_neither_does_a_frozen_input()
    {
        Tensor x = Normal(1, 5, 8).requires_grad_(), weight = Normal(2, 6, 8), bias = Normal(3, 6);
        Ops.Linear(x, weight, bias).sum().backward();
        Assert.Null(weight.grad);
        Assert.Null(bias.grad);
        Assert.True(LargestError(x.grad!, weight.sum(0).expand(5, 8)) < 1e-5);

        Tensor frozen = Normal(1, 5, 8), trained = Normal(2, 6, 8).requires_grad_();
        Ops.Linear(frozen, trained, bias).sum().backward();
        Assert.Null(frozen.grad);
        Assert.True(LargestError(trained.grad!, frozen.sum(0).expand(6, 8)) < 1e-5);
    }

    [Fact]
    public void A_row_has_the_same_bits_alone_and_among_others()
    {
        Tensor x = Normal(1, 40, 300), weight = Normal(2, 37, 300), all = Ops.Linear(x, weight);
        for (int row = 0; row < 40; row++)
        {
            Assert.True(Ops.Linear(x.narrow(0, row, 1), weight).SameAs(all.narrow(0, row, 1)));
        }
    }

    [Fact]
    public void Bad_arguments_are_refused_by_name()
    {
        void Refused(string message, Tensor x, Tensor weight, Tensor? bias) => Assert.Contains(message,
            Assert.Throws<ArgumentException>(() => Ops.Linear(x, weight, bias)).Message, StringComparison.Ordinal);
        Refused("x_TI must have shape [any, any]", ones(3, 4, 8), ones(5, 8), null);
        Refused("x_TI must be float32 or bfloat16", ones(3, 8, dtype: float64), ones(5, 8), null);
        Refused("weight_OI must have shape [any, 8]", ones(3, 8), ones(5, 7), null);
        Refused("weight_OI must be Float32", ones(3, 8), ones(5, 8).to(bfloat16), null);
        Refused("bias_O must have shape [5]", ones(3, 8), ones(5, 8), ones(6));
        Refused("bias_O must be Float32", ones(3, 8), ones(5, 8), ones(5).to(bfloat16));
    }
}
