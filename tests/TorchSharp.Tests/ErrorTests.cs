using TorchSharp.Native;
using static TorchSharp.torch;
using static TorchSharp.torch.autograd;

namespace TorchSharp.Tests;

public sealed class ErrorTests
{
    [Fact]
    public void A_wrong_matmul_names_the_operation_and_both_shapes()
    {
        using DisposeScope scope = NewDisposeScope();
        TorchException error = Assert.Throws<TorchException>(() => ones(2, 3).matmul(ones([4, 5], ScalarType.Float64)));
        Assert.StartsWith("matmul: ", error.Message, StringComparison.Ordinal);
        Assert.Contains("float32[2, 3], float64[4, 5]", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("frame #", error.Message, StringComparison.Ordinal);
        Assert.IsType<System.Runtime.InteropServices.ExternalException>(error, exactMatch: false);
    }

    [Fact]
    public void Lists_of_tensors_and_indices_name_their_shapes_too()
    {
        using DisposeScope scope = NewDisposeScope();
        TorchException cat = Assert.Throws<TorchException>(() => torch.cat([ones(2, 3), ones(4)]));
        Assert.Contains("cat: ", cat.Message, StringComparison.Ordinal);
        Assert.Contains("float32[2, 3], float32[4]", cat.Message, StringComparison.Ordinal);
        TorchException index = Assert.Throws<TorchException>(() => ones(2, 3)[5]);
        Assert.Contains("index: ", index.Message, StringComparison.Ordinal);
        Assert.Contains("float32[2, 3]", index.Message, StringComparison.Ordinal);
        TorchException backward = Assert.Throws<TorchException>(() => ones(2, 3).backward());
        Assert.Contains("backward: ", backward.Message, StringComparison.Ordinal);
        Assert.Contains("float32[2, 3]", backward.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_managed_exception_in_backward_arrives_as_the_inner_one_and_the_process_lives_on()
    {
        using DisposeScope scope = NewDisposeScope();
        long functions = LiveFunctions;
        for (int i = 0; i < 100; i++)
        {
            Tensor x = ones(2).requires_grad_();
            Tensor y = Failing.apply(x, "no gradient today") * 2;
            TorchException error = Assert.Throws<TorchException>(() => y.sum().backward());
            InvalidOperationException inner = Assert.IsType<InvalidOperationException>(error.InnerException);
            Assert.Equal("no gradient today", inner.Message);
            Assert.Contains("backward of Failing", error.Message, StringComparison.Ordinal);
            Assert.Contains("no gradient today", error.Message, StringComparison.Ordinal);
            scope.DisposeEverything();
        }
        Assert.Equal(functions, LiveFunctions);
        Tensor z = ones(2).requires_grad_();
        Cube.apply(z).sum().backward();
        Assert.Equal([3f, 3f], z.grad!.data<float>().ToArray());
    }

    [Fact]
    public void A_native_error_in_backward_keeps_its_operation_and_shapes()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor y = WrongShapes.apply(ones(2, 3).requires_grad_());
        TorchException error = Assert.Throws<TorchException>(() => y.sum().backward());
        TorchException inner = Assert.IsType<TorchException>(error.InnerException);
        Assert.StartsWith("matmul: ", inner.Message, StringComparison.Ordinal);
        Assert.Contains("float32[2, 3], float32[2, 3]", error.Message, StringComparison.Ordinal);
        Assert.Contains("WrongShapes", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_exception_crosses_two_nested_backward_passes()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor y = Nested.apply(ones(2).requires_grad_());
        TorchException outer = Assert.Throws<TorchException>(() => y.sum().backward());
        TorchException middle = Assert.IsType<TorchException>(outer.InnerException);
        Assert.Equal("deep", Assert.IsType<InvalidOperationException>(middle.InnerException).Message);
    }

    [Fact]
    public void An_exception_in_forward_arrives_unchanged_and_restores_the_modes()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = ones(2).requires_grad_();
        Assert.Throws<FormatException>(() => FailingForward.apply(x));
        Assert.True(is_grad_enabled());
        Assert.Same(scope, CurrentDisposeScope);
        Assert.Equal(1, scope.DisposablesCount);
    }

    [Fact]
    public void A_wrong_number_or_place_of_gradients_is_explained()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor y = TooFew.apply(ones(2).requires_grad_(), ones(2));
        Assert.Contains("1 gradients for 2 arguments", Assert.Throws<TorchException>(() => y.sum().backward()).Message, StringComparison.Ordinal);
        y = ForANumber.apply(ones(2).requires_grad_(), 5);
        Assert.Contains("argument 1, which is no tensor", Assert.Throws<TorchException>(() => y.sum().backward()).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_operator_that_this_libtorch_lacks_is_named()
    {
        Assert.False(has_operator("no_such_operator"));
        Assert.True(has_operator("add.Tensor"));
        if (!nn.functional.has_scaled_dot_product_attention)
        {
            using Tensor q = ones(1, 1, 2, 4);
            TorchException error = Assert.Throws<TorchException>(() => nn.functional.scaled_dot_product_attention(q, q, q));
            Assert.Contains("needs 2.0 or later", error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void An_impossible_allocation_says_that_memory_ran_out()
    {
        TorchException error = Assert.Throws<TorchException>(() => empty(1L << 50));
        Assert.True(error.IsOutOfMemory, error.Message);
    }

    [Fact]
    public void A_missing_library_lists_the_paths_and_the_cure()
    {
        string missing = Path.Combine(Path.GetTempPath(), "nowhere", "libtrainer_torch.so");
        DllNotFoundException error = Assert.Throws<DllNotFoundException>(() => LibraryLoader.Load([missing, missing + "2"]));
        Assert.Contains("was not found", error.Message, StringComparison.Ordinal);
        Assert.Contains(missing + ", " + missing + "2", error.Message, StringComparison.Ordinal);
        Assert.Contains("TRAINER_NATIVE", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_library_that_does_not_load_is_told_apart_from_a_missing_one()
    {
        string broken = Path.Combine(Path.GetTempPath(), $"libbroken-{Environment.ProcessId}.so");
        File.WriteAllText(broken, "not a library");
        try
        {
            DllNotFoundException error = Assert.Throws<DllNotFoundException>(() => LibraryLoader.Load([broken]));
            Assert.Contains("exists but did not load", error.Message, StringComparison.Ordinal);
            Assert.Contains("file too short", error.Message, StringComparison.Ordinal);
        }
        finally
        {
            File.Delete(broken);
        }
    }

    private sealed class Failing : SingleTensorFunction<Failing>
    {
        public override string Name => nameof(Failing);

        public override Tensor forward(AutogradContext ctx, params object[] vars)
        {
            ctx.save_data("message", vars[1]);
            return (Tensor)vars[0] * 2;
        }

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output) =>
            throw new InvalidOperationException((string)ctx.get_data("message"));
    }

    private sealed class WrongShapes : SingleTensorFunction<WrongShapes>
    {
        public override string Name => nameof(WrongShapes);

        public override Tensor forward(AutogradContext ctx, params object[] vars) => (Tensor)vars[0] * 2;

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output) => [grad_output.contiguous().matmul(grad_output)];
    }

    private sealed class Nested : SingleTensorFunction<Nested>
    {
        public override string Name => nameof(Nested);

        public override Tensor forward(AutogradContext ctx, params object[] vars) => (Tensor)vars[0] * 2;

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output)
        {
            using (enable_grad())
            {
                Failing.apply(ones(2).requires_grad_(), "deep").sum().backward();
            }
            return [grad_output];
        }
    }

    private sealed class FailingForward : SingleTensorFunction<FailingForward>
    {
        public override string Name => nameof(FailingForward);

        public override Tensor forward(AutogradContext ctx, params object[] vars)
        {
            _ = ones(100);
            throw new FormatException("forward");
        }

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output) => [grad_output];
    }

    private sealed class TooFew : SingleTensorFunction<TooFew>
    {
        public override string Name => nameof(TooFew);

        public override Tensor forward(AutogradContext ctx, params object[] vars) => (Tensor)vars[0] + (Tensor)vars[1];

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output) => [grad_output];
    }

    private sealed class ForANumber : SingleTensorFunction<ForANumber>
    {
        public override string Name => nameof(ForANumber);

        public override Tensor forward(AutogradContext ctx, params object[] vars) => (Tensor)vars[0] * (int)vars[1];

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output) => [grad_output, grad_output];
    }
}
