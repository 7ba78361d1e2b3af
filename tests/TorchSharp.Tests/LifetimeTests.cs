using System.Runtime.InteropServices;
using TorchSharp.Extras;
using TorchSharp.Modules;
using static TorchSharp.torch;
using static TorchSharp.torch.autograd;

namespace TorchSharp.Tests;

public sealed unsafe class LifetimeTests
{
    [Fact]
    public void A_scope_disposes_what_it_owns_and_nothing_else()
    {
        long before = LiveTensors;
        Tensor kept, detached;
        using (DisposeScope outer = NewDisposeScope())
        {
            Tensor moved, gone;
            using (DisposeScope inner = NewDisposeScope())
            {
                gone = ones(3);
                moved = (gone + 1).MoveToOuterDisposeScope();
                detached = zeros(2).DetachFromDisposeScope();
                Assert.Equal(outer, inner.OuterScope);
                Assert.True(inner.Contains(gone));
            }
            Assert.True(gone.IsInvalid);
            Assert.False(moved.IsInvalid);
            Assert.True(outer.Contains(moved));
            kept = outer.Detach(moved);
        }
        Assert.Equal(before + 2, LiveTensors);
        Assert.Equal([2f, 2f, 2f], kept.data<float>().ToArray());
        kept.Dispose();
        detached.Dispose();
        Assert.Equal(before, LiveTensors);
        Assert.Null(CurrentDisposeScope);
    }

    [Fact]
    public void A_scope_belongs_to_the_thread_that_made_it()
    {
        using DisposeScope scope = NewDisposeScope();
        DisposeScope? seen = scope;
        Tensor? made = null;
        var thread = new Thread(() => (seen, made) = (CurrentDisposeScope, ones(1)));
        thread.Start();
        thread.Join();
        Assert.Null(seen);
        Assert.False(scope.Contains(made!));
        made!.Dispose();
    }

    [Fact]
    public void Disposing_everything_but_one_keeps_that_one_in_the_scope()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor a = ones(1), b = a + 1, c = b + 1;
        Assert.Same(b, scope.DisposeEverythingBut(b));
        Assert.True(a.IsInvalid && c.IsInvalid);
        Assert.Equal(1, scope.DisposablesCount);
        Assert.Equal(2f, b.ToSingle());
    }

    [Fact]
    public void A_disposed_tensor_is_refused_by_name()
    {
        Tensor gone = ones(1);
        gone.Dispose();
        gone.Dispose();
        Assert.Throws<ObjectDisposedException>(() => gone + 1);
    }

    [Fact]
    public void A_thousand_training_steps_leave_the_counters_unchanged()
    {
        using var model = new TwoLayers();
        using optim.Optimizer optimizer = optim.AdamW(model.parameters(), lr: 1e-2);
        manual_seed(1);
        using Tensor inputs = randn(16, 8).DetachFromDisposeScope(), targets = randn(16, 4).DetachFromDisposeScope();
        float first = Step(), last = first;
        long tensors = LiveTensors, functions = LiveFunctions;
        for (int i = 0; i < 1000; i++)
        {
            last = Step();
        }
        Assert.Equal(tensors, LiveTensors);
        Assert.Equal(functions, LiveFunctions);
        Assert.True(last < first / 2, $"the loss went from {first} to {last}");

        float Step()
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor loss = (model.forward(inputs) - targets).square().mean();
            loss.backward();
            nn.utils.clip_grad_norm_(model.parameters(), 1.0);
            optimizer.step();
            optimizer.zero_grad();
            return loss.ToSingle();
        }
    }

    [Fact]
    public void Saved_tensors_are_freed_after_backward_and_when_the_graph_is_dropped()
    {
        long functions = LiveFunctions;
        int released = 0;
        var memory = (float*)NativeMemory.AllocZeroed(4, sizeof(float));
        using Tensor x = ones(4).requires_grad_();

        Tensor y = SumWithBlob();
        Assert.Equal(0, released);
        using (Tensor sum = y.sum())
        {
            sum.backward();
        }
        Assert.Equal(1, released);
        y.Dispose();

        y = SumWithBlob();
        Assert.Equal(1, released);
        Assert.True(LiveFunctions > functions);
        y.Dispose();
        Assert.Equal(2, released);
        Assert.Equal(functions, LiveFunctions);
        NativeMemory.Free(memory);

        // Only the custom function's saved tensor holds the memory once the scope has ended.
        Tensor SumWithBlob()
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor blob = Memory.FromBlob((nint)memory, [4], ScalarType.Float32, () => released++);
            return KeepSecond.apply(x, blob).MoveToOuterDisposeScope();
        }
    }

    [Fact]
    public void A_saved_output_makes_no_cycle()
    {
        long functions = LiveFunctions;
        using (NewDisposeScope())
        {
            Tensor x = tensor([0f, 1f], requires_grad: true);
            Tensor y = ExpWithSavedOutput.apply(x);
            _ = ExpWithSavedOutput.apply(x);
            y.sum().backward();
            Assert.True(x.grad!.allclose(y.detach()));
        }
        Assert.Equal(functions, LiveFunctions);
    }

    [Fact]
    public void A_context_dies_with_its_graph()
    {
        WeakReference<object> data = DropGraph();
        GC.Collect();
        GC.WaitForPendingFinalizers();
        GC.Collect();
        Assert.False(data.TryGetTarget(out _));
    }

    [Fact]
    public void Outputs_cost_no_memory_beyond_what_was_saved()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = ones(4).requires_grad_(), other = ones(4);
        long before = LiveTensors;
        Tensor y = KeepSecond.apply(x, other);
        Assert.Equal(before + 1, LiveTensors);
        y.sum().backward();
        Assert.Equal([1f, 1f, 1f, 1f], x.grad!.data<float>().ToArray());
    }

    [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
    private static WeakReference<object> DropGraph()
    {
        using DisposeScope scope = NewDisposeScope();
        var data = new object();
        _ = KeepObject.apply(ones(1).requires_grad_(), data);
        return new WeakReference<object>(data);
    }

    private sealed class TwoLayers : nn.Module<Tensor, Tensor>
    {
        private readonly Linear _first = nn.Linear(8, 16);
        private readonly Linear _second = nn.Linear(16, 4);

        public TwoLayers() : base(nameof(TwoLayers)) => RegisterComponents();

        public override Tensor forward(Tensor input) => _second.call(Cube.apply(_first.call(input).tanh()));
    }

    private sealed class KeepSecond : SingleTensorFunction<KeepSecond>
    {
        public override string Name => nameof(KeepSecond);

        public override Tensor forward(AutogradContext ctx, params object[] vars)
        {
            ctx.save_for_backward([(Tensor)vars[1]]);
            return (Tensor)vars[0] + (Tensor)vars[1];
        }

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output)
        {
            Assert.Single(ctx.get_saved_variables());
            return [grad_output, null!];
        }
    }

    private sealed class ExpWithSavedOutput : SingleTensorFunction<ExpWithSavedOutput>
    {
        public override string Name => nameof(ExpWithSavedOutput);

        public override Tensor forward(AutogradContext ctx, params object[] vars)
        {
            Tensor result = ((Tensor)vars[0]).exp();
            ctx.save_for_backward([result]);
            return result;
        }

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output) =>
            [grad_output * ctx.get_saved_variables()[0]];
    }

    private sealed class KeepObject : SingleTensorFunction<KeepObject>
    {
        public override string Name => nameof(KeepObject);

        public override Tensor forward(AutogradContext ctx, params object[] vars)
        {
            ctx.save_data("object", vars[1]);
            return (Tensor)vars[0] * 2;
        }

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output) => [grad_output * 2, null!];
    }
}
