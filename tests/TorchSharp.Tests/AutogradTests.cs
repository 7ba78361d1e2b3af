using TorchSharp.Extras;
using static TorchSharp.torch;

namespace TorchSharp.Tests;

public sealed class AutogradTests : IDisposable
{
    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Fact]
    public void Backward_accumulates_into_leaves()
    {
        Tensor x = tensor([1f, 2f], requires_grad: true);
        Tensor y = (x * x).sum();
        Assert.True(x.is_leaf);
        Assert.False(y.is_leaf);
        y.backward(retain_graph: true);
        y.backward();
        Assert.Equal([4f, 8f], x.grad!.data<float>().ToArray());
        Assert.Throws<TorchException>(() => y.backward());
    }

    [Fact]
    public void Grad_returns_without_accumulating_and_can_be_differentiated_again()
    {
        Tensor x = tensor(3.0, requires_grad: true), unused = tensor(1.0, requires_grad: true);
        Tensor first = autograd.grad([x.pow(3)], [x], create_graph: true)[0];
        Assert.Equal(27.0, first.ToDouble());
        Assert.Equal(18.0, autograd.grad([first], [x])[0].ToDouble());
        Assert.Null(x.grad);
        IList<Tensor> both = autograd.grad([x * 2], [x, unused], allow_unused: true);
        Assert.Equal(2.0, both[0].ToDouble());
        Assert.Null(both[1]);
        Assert.Throws<TorchException>(() => autograd.grad([x * 2], [unused]));
    }

    [Fact]
    public void Backward_can_be_limited_to_some_inputs_and_weighted()
    {
        Tensor x = ones(2).requires_grad_(), w = ones(2).requires_grad_();
        autograd.backward([x * w * 3], [tensor([1f, 10f])], inputs: [w]);
        Assert.Null(x.grad);
        Assert.Equal([3f, 30f], w.grad!.data<float>().ToArray());
    }

    [Fact]
    public void Modes_nest_and_restore()
    {
        Tensor x = ones(1).requires_grad_();
        using (no_grad())
        {
            Assert.False((x * 2).requires_grad);
            using (enable_grad())
            {
                Assert.True((x * 2).requires_grad);
            }
            Assert.False(is_grad_enabled());
        }
        Assert.True(is_grad_enabled());
        using (inference_mode())
        {
            Assert.True(is_inference_mode_enabled());
            Assert.False((x * 2).requires_grad);
        }
        Assert.False(is_inference_mode_enabled());
        Assert.True((x * 2).requires_grad);
    }

    [Fact]
    public void Detached_tensors_share_data_but_no_graph()
    {
        Tensor x = ones(2).requires_grad_(), y = x * 2, detached = y.detach();
        Assert.False(detached.requires_grad);
        Assert.Equal(y.DataPointer, detached.DataPointer);
        Assert.Same(y, y.detach_());
        Assert.False(y.requires_grad);
        x.grad = tensor([5f, 6f]);
        Assert.Equal([5f, 6f], x.grad!.data<float>().ToArray());
        x.grad = null;
        Assert.Null(x.grad);
    }

    [Fact]
    public void Set_data_keeps_the_leaf_and_its_new_dtype()
    {
        Tensor x = ones(2).requires_grad_();
        x.SetData(tensor([3f, 4f]).to(bfloat16));
        Assert.True(x.requires_grad && x.is_leaf);
        Assert.Equal(bfloat16, x.dtype);
    }
}
