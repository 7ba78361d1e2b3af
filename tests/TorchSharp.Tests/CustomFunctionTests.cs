using TorchSharp.Extras;
using TorchSharp.Modules;
using static TorchSharp.torch;
using static TorchSharp.torch.autograd;

namespace TorchSharp.Tests;

public sealed class CustomFunctionTests
{
    [Fact]
    public void A_single_output_function_gives_its_own_gradient()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = tensor([1f, 2f, 3f], requires_grad: true);
        Tensor y = Cube.apply(x);
        y.sum().backward();
        Assert.Equal([1f, 8f, 27f], y.data<float>().ToArray());
        Assert.Equal([3f, 12f, 27f], x.grad!.data<float>().ToArray());
        Assert.True(y.requires_grad);
    }

    [Fact]
    public void A_multi_output_function_gets_zeros_for_the_output_that_is_not_used()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor a = tensor([2f, 3f], requires_grad: true), b = tensor([5f, 7f], requires_grad: true);
        List<Tensor> outputs = SumAndProduct.apply(a, b, 4.0);
        Assert.Equal([28f, 40f], outputs[0].data<float>().ToArray());
        Assert.Equal([10f, 21f], outputs[1].data<float>().ToArray());
        outputs[1].sum().backward();
        Assert.Equal([5f, 7f], a.grad!.data<float>().ToArray());
        Assert.Equal([2f, 3f], b.grad!.data<float>().ToArray());

        (a.grad, b.grad) = (null, null);
        outputs = SumAndProduct.apply(a, b, 4.0);
        (outputs[0].sum() + outputs[1].sum()).backward();
        Assert.Equal([9f, 11f], a.grad!.data<float>().ToArray());
    }

    [Fact]
    public void Without_materialised_gradients_backward_sees_null_for_an_unused_output()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = tensor([1f], requires_grad: true);
        List<Tensor> outputs = Twins.apply(x);
        outputs[1].sum().backward();
        Assert.Equal([10f], x.grad!.data<float>().ToArray());
    }

    [Fact]
    public void A_non_differentiable_output_does_not_require_a_gradient()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = tensor([3f, 1f, 2f], requires_grad: true);
        List<Tensor> outputs = SortWithOrder.apply(x);
        Assert.True(outputs[0].requires_grad);
        Assert.False(outputs[1].requires_grad);
        Assert.Equal([1L, 2L, 0L], outputs[1].data<long>().ToArray());
        (outputs[0] * tensor([1f, 2f, 3f])).sum().backward();
        Assert.Equal([3f, 1f, 2f], x.grad!.data<float>().ToArray());
    }

    [Fact]
    public void Needs_input_grad_follows_the_inputs_and_the_pass()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor a = tensor([1f], requires_grad: true), b = tensor([2f]), c = tensor([3f], requires_grad: true);
        AskWhatIsNeeded.Asked.Clear();
        grad([AskWhatIsNeeded.apply(a, b, c)], [c]);
        Assert.Equal(["forward True False True", "backward False False True"], AskWhatIsNeeded.Asked);
    }

    [Fact]
    public void Modes_inside_forward_do_not_leak_out()
    {
        using DisposeScope scope = NewDisposeScope();
        Assert.True(is_grad_enabled());
        Tensor x = tensor([2f], requires_grad: true);
        Tensor y = GradientInsideForward.apply(x);
        Assert.True(is_grad_enabled());
        y.backward();
        Assert.Equal(12f, x.grad!.ToSingle());
        using (no_grad())
        {
            Assert.False(Cube.apply(x).requires_grad);
        }
    }

    [Fact]
    public void An_input_changed_in_place_keeps_its_gradient()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = tensor([2f, 3f], requires_grad: true);
        Tensor middle = x * 2;
        Tensor doubled = DoubleInPlace.apply(middle);
        Assert.Equal([8f, 12f], middle.data<float>().ToArray());
        doubled.sum().backward();
        Assert.Equal([4f, 4f], x.grad!.data<float>().ToArray());
    }

    [Fact]
    public void A_saved_tensor_that_was_changed_in_place_is_refused()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = tensor([2f], requires_grad: true);
        Tensor middle = x * 1;
        Tensor y = Cube.apply(middle);
        middle.add_(1);
        TorchException error = Assert.Throws<TorchException>(() => y.backward());
        Assert.Contains("modified by an inplace operation", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_second_backward_through_released_tensors_is_refused()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = tensor([2f], requires_grad: true);
        Tensor y = Cube.apply(x);
        y.backward();
        TorchException error = Assert.Throws<TorchException>(() => y.backward());
        Assert.Contains("second time", error.Message, StringComparison.Ordinal);
    }

    private static IList<Tensor> grad(IList<Tensor> outputs, IList<Tensor> inputs) => autograd.grad(outputs, inputs);

    private sealed class SumAndProduct : MultiTensorFunction<SumAndProduct>
    {
        public override string Name => nameof(SumAndProduct);

        public override List<Tensor> forward(AutogradContext ctx, params object[] vars)
        {
            var (a, b, factor) = ((Tensor)vars[0], (Tensor)vars[1], (double)vars[2]);
            ctx.save_for_backward([a, b]);
            ctx.save_data("factor", factor);
            return [(a + b) * factor, a * b];
        }

        public override List<Tensor> backward(AutogradContext ctx, List<Tensor> grad_outputs)
        {
            List<Tensor> saved = ctx.get_saved_variables();
            Tensor sum = grad_outputs[0] * (double)ctx.get_data("factor");
            return [sum + grad_outputs[1] * saved[1], sum + grad_outputs[1] * saved[0], null!];
        }
    }

    private sealed class Twins : MultiTensorFunction<Twins>
    {
        public override string Name => nameof(Twins);

        public override List<Tensor> forward(AutogradContext ctx, params object[] vars)
        {
            ctx.set_materialize_grads(false);
            return [(Tensor)vars[0] * 3, (Tensor)vars[0] * 10];
        }

        public override List<Tensor> backward(AutogradContext ctx, List<Tensor> grad_outputs)
        {
            Assert.Null(grad_outputs[0]);
            return [grad_outputs[1] * 10];
        }
    }

    private sealed class SortWithOrder : MultiTensorFunction<SortWithOrder>
    {
        public override string Name => nameof(SortWithOrder);

        public override List<Tensor> forward(AutogradContext ctx, params object[] vars)
        {
            (Tensor values, Tensor order) = ((Tensor)vars[0]).sort();
            ctx.mark_non_differentiable([order]);
            ctx.save_for_backward([order]);
            return [values, order];
        }

        public override List<Tensor> backward(AutogradContext ctx, List<Tensor> grad_outputs) =>
            [zeros_like(grad_outputs[0]).scatter_(0, ctx.get_saved_variables()[0], grad_outputs[0])];
    }

    private sealed class AskWhatIsNeeded : SingleTensorFunction<AskWhatIsNeeded>
    {
        public static List<string> Asked { get; } = [];

        public override string Name => nameof(AskWhatIsNeeded);

        public override Tensor forward(AutogradContext ctx, params object[] vars)
        {
            Ask("forward", ctx);
            return (Tensor)vars[0] + (Tensor)vars[1] + (Tensor)vars[2];
        }

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output)
        {
            Ask("backward", ctx);
            return [grad_output, null!, grad_output];
        }

        private static void Ask(string where, AutogradContext ctx) =>
            Asked.Add($"{where} {ctx.needs_input_grad(0)} {ctx.needs_input_grad(1)} {ctx.needs_input_grad(2)}");
    }

    private sealed class GradientInsideForward : SingleTensorFunction<GradientInsideForward>
    {
        public override string Name => nameof(GradientInsideForward);

        public override Tensor forward(AutogradContext ctx, params object[] vars)
        {
            Assert.False(is_grad_enabled());
            Tensor x = ((Tensor)vars[0]).detach();
            using (enable_grad())
            {
                Tensor leaf = x.requires_grad_();
                Tensor cube = leaf.pow(3);
                ctx.save_for_backward([.. autograd.grad([cube.sum()], [leaf])]);
            }
            Assert.False(is_grad_enabled());
            return x.detach().pow(3);
        }

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output) =>
            [ctx.get_saved_variables()[0] * grad_output];
    }

    private sealed class DoubleInPlace : SingleTensorFunction<DoubleInPlace>
    {
        public override string Name => nameof(DoubleInPlace);

        public override Tensor forward(AutogradContext ctx, params object[] vars)
        {
            var x = (Tensor)vars[0];
            ctx.mark_dirty([x]);
            return x.mul_(2);
        }

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output) => [grad_output * 2];
    }
}

/// <summary>x^3.</summary>
internal sealed class Cube : SingleTensorFunction<Cube>
{
    public override string Name => nameof(Cube);

    public override Tensor forward(AutogradContext ctx, params object[] vars)
    {
        var x = (Tensor)vars[0];
        ctx.save_for_backward([x]);
        return x * x * x;
    }

    public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output)
    {
        Tensor x = ctx.get_saved_variables()[0];
        return [grad_output * 3 * x * x];
    }
}
