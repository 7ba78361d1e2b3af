using TorchSharp.Extras;
using Trainer.Worker.Kernels;
using static Trainer.Worker.Tests.Kernels.Differentiation;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Kernels;

public sealed class LinearCrossEntropyTests : IDisposable
{
    private readonly TorchSharp.DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(1000)]
    public void Loss_and_gradients_agree_with_float64_for_any_chunk(int chunkRows)
    {
        Tensor labels = tensor([3L, -100, 0, 49, -100, 7, 7, 12, 30, 1, -100], int64);
        foreach (ScalarType dtype in new[] { float32, bfloat16 })
        {
            AssertClose(x => [Ops.LinearCrossEntropy(x[0], x[1], labels, 0.125, chunkRows)], x => [Reference(x[0], x[1], labels, 0.125)],
                dtype, dtype == float32 ? 1e-5 : 1.0 / 64, Normal(1, 11, 16), Normal(2, 50, 16));
        }
    }

    [Fact]
    public void A_frozen_weight_gets_no_gradient_and_the_upstream_gradient_multiplies()
    {
        Tensor hidden = Normal(1, 6, 8).requires_grad_(), twice = Normal(1, 6, 8).requires_grad_(), weight = Normal(2, 20, 8);
        Tensor labels = tensor([1L, 2, 3, 4, 5, 6], int64);
        Ops.LinearCrossEntropy(hidden, weight, labels, 1).backward();
        (Ops.LinearCrossEntropy(twice, weight, labels, 1) * 2).backward();
        Assert.Null(weight.grad);
        Assert.True((hidden.grad! * 2).SameAs(twice.grad!));
    }

    [Fact]
    public void A_frozen_hidden_still_gives_the_weight_its_gradient()
    {
        Tensor hidden = Normal(1, 6, 8), labels = tensor([1L, 2, -100, 4, 5, 6], int64);
        AssertClose(x => [Ops.LinearCrossEntropy(hidden, x[0], labels, 1)], x => [Reference(hidden.to(float64), x[0], labels, 1)],
            float32, 1e-5, Normal(2, 20, 8));
    }

    [Fact]
    public void Without_gradient_mode_the_loss_is_the_same_and_needs_none()
    {
        Tensor hidden = Normal(1, 6, 8).requires_grad_(), weight = Normal(2, 20, 8).requires_grad_();
        Tensor labels = tensor([1L, 2, 3, 4, 5, 6], int64);
        Tensor loss = Ops.LinearCrossEntropy(hidden, weight, labels, 1);
        using (no_grad())
        {
            Tensor evaluated = Ops.LinearCrossEntropy(hidden, weight, labels, 1);
            Assert.False(evaluated.requires_grad);
            Assert.Equal(loss.ToSingle(), evaluated.ToSingle());
        }
    }

    [Fact]
    public void Rows_that_are_all_ignored_give_zero_loss_and_zero_gradients()
    {
        Tensor hidden = Normal(1, 4, 8).requires_grad_(), weight = Normal(2, 20, 8).requires_grad_();
        Tensor loss = Ops.LinearCrossEntropy(hidden, weight, full(4, -100, int64), 1);
        loss.backward();
        Assert.Equal(0, loss.ToSingle());
        Assert.Equal(0, Largest(hidden.grad!));
        Assert.Equal(0, Largest(weight.grad!));
    }

    [Fact]
    public void The_vocabulary_of_Qwen_agrees_with_float64()
    {
        Tensor labels = tensor([151935L, 0, -100, 77777], int64);
        AssertClose(x => [Ops.LinearCrossEntropy(x[0], x[1], labels, 0.5, 3)], x => [Reference(x[0], x[1], labels, 0.5)],
            float32, 1e-5, Normal(1, 4, 16), Normal(2, 151936, 16));
    }

    [Fact]
    public void Repeated_runs_are_bit_equal()
    {
        Tensor labels = full(40, 5, int64);
        Tensor[] Once() => Run(x => [Ops.LinearCrossEntropy(x[0], x[1], labels, 1, 16)], bfloat16, Normal(1, 40, 16), Normal(2, 500, 16));
        Assert.All(Once().Zip(Once()), pair => Assert.True(pair.First.SameAs(pair.Second)));
    }

    [Fact]
    public void Bad_arguments_are_refused_by_name_a_label_with_its_row()
    {
        Tensor hidden = ones(3, 8), weight = ones(20, 8), labels = tensor([1L, 2, 3], int64);
        void Refused(string message, Tensor h, Tensor w, Tensor l) => Assert.Contains(message,
            Assert.Throws<ArgumentException>(() => Ops.LinearCrossEntropy(h, w, l, 1)).Message, StringComparison.Ordinal);
        Refused("labels_T: row 1 has label 20", hidden, weight, tensor([1L, 20, 3], int64));
        Refused("labels_T: row 2 has label -1", hidden, weight, tensor([1L, -100, -1], int64));
        Refused("labels_T must be Int64", hidden, weight, labels.to(int32));
        Refused("labels_T must have shape [3]", hidden, weight, labels.narrow(0, 0, 2));
        Refused("weight_VD must have shape [any, 8]", hidden, ones(20, 7), labels);
        Refused("weight_VD must be Float32", hidden, weight.to(bfloat16), labels);
        Refused("hidden_TD must be float32 or bfloat16", hidden.to(float64), weight, labels);
    }

    private static Tensor Reference(Tensor hidden, Tensor weight, Tensor labels, double scale)
    {
        Tensor kept = labels.ne(-100).nonzero().squeeze(1);
        Tensor logits = hidden.index_select(0, kept).matmul(weight.t());
        Tensor chosen = logits.log_softmax(-1).gather(1, labels.index_select(0, kept).unsqueeze(1));
        return -chosen.sum() * scale;
    }
}
