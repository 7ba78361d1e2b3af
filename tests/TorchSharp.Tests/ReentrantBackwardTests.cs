using TorchSharp.Extras;
using static TorchSharp.torch;
using static TorchSharp.torch.autograd;

namespace TorchSharp.Tests;

public sealed class ReentrantBackwardTests
{
    [Fact]
    public void Recomputation_gives_the_plain_graphs_gradients_bitwise()
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(3);
        Tensor[] weights = [.. Enumerable.Range(0, 6).Select(_ => randn(32, 32).div_(6).requires_grad_())];
        Tensor input = randn(16, 32).requires_grad_();
        Tensor[] plain = Gradients((x, w) => Block(x, w));
        Tensor[] recomputed = Gradients((x, w) => Checkpoint.apply(x, w));
        Assert.Equal(7, plain.Length);
        for (int i = 0; i < plain.Length; i++)
        {
            Assert.True(plain[i].SameAs(recomputed[i]), $"gradient {i} differs");
        }

        Tensor[] Gradients(Func<Tensor, Tensor, Tensor> block)
        {
            Tensor x = weights.Aggregate(input, block);
            x.square().sum().backward();
            Tensor[] gradients = [.. weights.Append(input).Select(leaf => leaf.grad!)];
            foreach (Tensor leaf in weights.Append(input))
            {
                leaf.grad = null;
            }
            return gradients;
        }
    }

    [Fact]
    public void Passes_nested_deeper_than_one_thread_allows_run_on_libtorchs_threads()
    {
        // libtorch moves a re-entrant pass of depth 60 to a thread of its pool.
        using DisposeScope scope = NewDisposeScope();
        long tensors = LiveTensors;
        Tensor x = ones(1).requires_grad_();
        Threads.Clear();
        NestedPass.apply(x, 150).backward();
        Assert.Equal(1f, x.grad!.ToSingle());
        Assert.True(Threads.Count > 1, $"{Threads.Count} threads");
        scope.DisposeEverything();
        Assert.Equal(tensors, LiveTensors);
    }

    [Fact]
    public void Threads_that_share_a_leaf_run_backward_at_the_same_time()
    {
        using Tensor x = ones(8).requires_grad_();
        var failures = new System.Collections.Concurrent.ConcurrentQueue<Exception>();
        Thread[] threads = [.. Enumerable.Range(0, 4).Select(_ => new Thread(() =>
        {
            try
            {
                for (int i = 0; i < 50; i++)
                {
                    using DisposeScope scope = NewDisposeScope();
                    Tensor gradient = autograd.grad([Cube.apply(x).sum()], [x])[0];
                    Assert.Equal(3f, gradient[0].ToSingle());
                }
            }
            catch (Exception e)
            {
                failures.Enqueue(e);
            }
        }))];
        Array.ForEach(threads, thread => thread.Start());
        Array.ForEach(threads, thread => thread.Join());
        Assert.Empty(failures);
    }

    private static readonly HashSet<int> Threads = [];

    private static Tensor Block(Tensor x, Tensor weight) => x.matmul(weight).tanh() + x;

    private sealed class Checkpoint : SingleTensorFunction<Checkpoint>
    {
        public override string Name => nameof(Checkpoint);

        public override Tensor forward(AutogradContext ctx, params object[] vars)
        {
            ctx.save_for_backward([(Tensor)vars[0], (Tensor)vars[1]]);
            return Block((Tensor)vars[0], (Tensor)vars[1]);
        }

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output)
        {
            List<Tensor> saved = ctx.get_saved_variables();
            using (enable_grad())
            {
                Tensor x = saved[0].detach().requires_grad_(), weight = saved[1].detach().requires_grad_();
                autograd.backward([Block(x, weight)], [grad_output]);
                return [x.grad!, weight.grad!];
            }
        }
    }

    private sealed class NestedPass : SingleTensorFunction<NestedPass>
    {
        public override string Name => nameof(NestedPass);

        public override Tensor forward(AutogradContext ctx, params object[] vars)
        {
            ctx.save_data("depth", vars[1]);
            return ((Tensor)vars[0]).clone();
        }

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output)
        {
            lock (Threads)
            {
                Threads.Add(Environment.CurrentManagedThreadId);
            }
            int depth = (int)ctx.get_data("depth");
            if (depth == 0)
            {
                return [grad_output, null!];
            }
            using (enable_grad())
            {
                Tensor leaf = ones(1).requires_grad_();
                NestedPass.apply(leaf, depth - 1).backward();
                return [leaf.grad! * grad_output, null!];
            }
        }
    }
}
