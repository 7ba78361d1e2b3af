using TorchSharp.Extras;
using Trainer.Worker.Kernels;
using static Trainer.Worker.Tests.Kernels.Differentiation;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Kernels;

public sealed class FlashAttentionTests : IDisposable
{
    private readonly TorchSharp.DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Theory]
    [InlineData(1, 1, 16, new[] { 1 })]
    [InlineData(2, 2, 64, new[] { 64 })]
    [InlineData(4, 2, 32, new[] { 70, 0, 3, 129 })]
    [InlineData(14, 2, 64, new[] { 65, 40 })]
    [InlineData(7, 1, 128, new[] { 90 })]
    [InlineData(2, 1, 256, new[] { 33, 1 })]
    public void Error_is_at_most_twice_that_of_math_attention(int heads, int kvHeads, int dim, int[] lengths)
    {
        foreach (ScalarType dtype in new[] { float32, bfloat16 })
        {
            var (inputs, boundaries) = Problem(heads, kvHeads, dim, lengths, dtype);
            Tensor[] exact = Run(x => [Math(x, boundaries)], float64, inputs);
            Tensor[] math = Run(x => [Math(x, boundaries)], dtype, inputs);
            Tensor[] flash = Run(x => [Flash(x, boundaries)], dtype, inputs);
            foreach (var (name, i) in new[] { "out", "dq", "dk", "dv" }.Select((name, i) => (name, i)))
            {
                // Where math attention happens to be exact, half a unit of the largest element in the last place remains.
                double floor = (dtype == float32 ? 1.2e-7 : 1.0 / 256) * Largest(exact[i]) / 2 + 1e-7;
                double allowed = System.Math.Max(2 * LargestError(math[i], exact[i]), floor);
                double error = LargestError(flash[i], exact[i]);
                Assert.True(error <= allowed, $"{dtype} {name}: flash {error:g3}, allowed {allowed:g3}");
            }
        }
    }

    // Whose sums happen to be the luckier ones, a BLAS's or ours, should not decide: the worst of many draws.
    [Theory]
    [InlineData(2, 1, 256, new[] { 33, 1 })]
    [InlineData(7, 1, 128, new[] { 90 })]
    [InlineData(14, 2, 64, new[] { 65, 40 })]
    [InlineData(4, 2, 64, new[] { 300 })]
    public void Over_many_draws_the_worst_error_is_at_most_one_and_a_half_that_of_math_attention(int heads, int kvHeads, int dim, int[] lengths)
    {
        double[] flashWorst = new double[4], mathWorst = new double[4];
        for (ulong seed = 1; seed <= 16; seed++)
        {
            var (inputs, boundaries) = Problem(heads, kvHeads, dim, lengths, float32, 3 * seed);
            Tensor[] exact = Run(x => [Math(x, boundaries)], float64, inputs);
            Tensor[] math = Run(x => [Math(x, boundaries)], float32, inputs);
            Tensor[] flash = Run(x => [Flash(x, boundaries)], float32, inputs);
            for (int i = 0; i < 4; i++)
            {
                flashWorst[i] = System.Math.Max(flashWorst[i], LargestError(flash[i], exact[i]));
                mathWorst[i] = System.Math.Max(mathWorst[i], LargestError(math[i], exact[i]));
            }
        }
        foreach (var (name, i) in new[] { "out", "dq", "dk", "dv" }.Select((name, i) => (name, i)))
            Assert.True(flashWorst[i] <= 1.5 * mathWorst[i], $"{name}: flash {flashWorst[i]:g3}, math {mathWorst[i]:g3}");
    }

    [Theory]
    [InlineData(0)]
    [InlineData(5)]
    [InlineData(64)]
    public void A_sliding_window_agrees_with_its_mask(int window)
    {
        var (inputs, boundaries) = Problem(4, 2, 32, [150, 20], float32);
        AssertClose(x => [Flash(x, boundaries, window)], x => [Math(x, boundaries, window)], float32, 1e-5, inputs);
    }

    [Fact]
    public void Slices_of_a_fused_projection_are_read_in_place()
    {
        int[] boundaries = [0, 70, 100];
        Tensor fused = Normal(5, 100, (4 + 2 + 2) * 24);
        static Tensor[] Split(Tensor x) =>
            [x.narrow(1, 0, 96).view(-1, 4, 24), x.narrow(1, 96, 48).view(-1, 2, 24), x.narrow(1, 144, 48).view(-1, 2, 24)];
        AssertClose(x => [Flash(Split(x[0]), boundaries)], x => [Math(Split(x[0]), boundaries)], float32, 1e-5, fused);
    }

    [Fact]
    public void A_broadcast_gradient_is_taken()
    {
        var (inputs, boundaries) = Problem(2, 1, 16, [20], float32);
        Tensor[] leaves = [.. inputs.Select(x => x.clone().requires_grad_())], expected = [.. inputs.Select(x => x.clone().requires_grad_())];
        Flash(leaves, boundaries).sum().backward();
        Math(expected, boundaries).sum().backward();
        Assert.All(leaves.Zip(expected), pair => Assert.True(LargestError(pair.First.grad!, pair.Second.grad!) < 1e-4));
    }

    [Fact]
    public void Repeated_runs_and_other_thread_counts_are_bit_equal()
    {
        var (inputs, boundaries) = Problem(6, 2, 64, [300, 17, 200], bfloat16);
        Tensor[] first = Run(x => [Flash(x, boundaries)], bfloat16, inputs);
        for (int threads = 1; threads <= 3; threads++)
        {
            KernelException.ThrowIfFailed(TrainerKernels.tn_set_threads(threads));
            Tensor[] again = Run(x => [Flash(x, boundaries)], bfloat16, inputs);
            Assert.All(first.Zip(again), pair => Assert.True(pair.First.SameAs(pair.Second)));
        }
        KernelException.ThrowIfFailed(TrainerKernels.tn_set_threads(Environment.ProcessorCount));
    }

    [Fact]
    public void Packed_gradients_equal_those_of_each_sequence_alone()
    {
        var (inputs, boundaries) = Problem(4, 2, 32, [70, 33], float32);
        Tensor[] packed = Run(x => [Flash(x, boundaries)], float32, inputs);
        Tensor[] alone = Run(x => [cat([
            Flash([.. x.Select(t => t.narrow(0, 0, 70))], [0, 70]),
            Flash([.. x.Select(t => t.narrow(0, 70, 33))], [0, 33])], 0)], float32, inputs);
        Assert.All(packed.Zip(alone), pair => Assert.True(pair.First.SameAs(pair.Second)));
    }

    [Fact]
    public void Bad_boundaries_are_refused_by_name()
    {
        var (inputs, _) = Problem(2, 1, 8, [10], float32);
        foreach (int[] bad in new[] { new[] { 1, 10 }, [0, 7, 5, 10], [0, 9], [0] })
        {
            var e = Assert.Throws<KernelException>(() => Flash(inputs, bad));
            Assert.Equal(KernelStatus.InvalidArgument, e.Status);
            Assert.Equal("tn_attention_forward", e.Call);
            Assert.StartsWith("cu_seqlens_q:", e.Reason, StringComparison.Ordinal);
        }
        Tensor wide = tensor([0L, 10L], int64);
        Assert.Contains("cuSeqlens", Assert.Throws<ArgumentException>(
            () => Ops.FlashAttention(inputs[0], inputs[1], inputs[2], wide, 1)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Bad_tensors_are_refused_by_name()
    {
        var (x, _) = Problem(4, 2, 8, [10], float32);
        Tensor cu = tensor([0, 10], int32);
        void Refused(string message, Tensor q, Tensor k, Tensor v, double scale = 1) => Assert.Contains(message,
            Assert.ThrowsAny<Exception>(() => Ops.FlashAttention(q, k, v, cu, scale)).Message, StringComparison.Ordinal);
        Refused("q_TNH must be float32", x[0].to(float64), x[1], x[2]);
        Refused("q_TNH must have shape", x[0][0], x[1], x[2]);
        Refused("k_TMH must be Float32", x[0], x[1].to(bfloat16), x[2]);
        Refused("k_TMH must have shape", x[0], x[1].narrow(0, 0, 9), x[2]);
        Refused("v_TMH must have shape", x[0], x[1], x[2].narrow(2, 0, 7));
        Refused("q_TNH must have a contiguous last dimension", x[0].transpose(1, 2).contiguous().transpose(1, 2), x[1], x[2]);
        Refused("q_heads: must be a multiple of kv_heads", x[0].narrow(1, 0, 3), x[1], x[2]);
        Refused("q_TNH: token_stride", x[0].narrow(0, 0, 1).expand(10, 4, 8), x[1], x[2]);
        Refused("scale: must be finite", x[0], x[1], x[2], double.NaN);
        Refused("head_dim: must be in 1..256", ones(10, 4, 257), ones(10, 2, 257), ones(10, 2, 257));
    }

    private static (Tensor[] Inputs, int[] Boundaries) Problem(int heads, int kvHeads, int dim, int[] lengths, ScalarType dtype, ulong seed = 1)
    {
        int[] boundaries = [0, .. lengths.Select((_, i) => lengths[..(i + 1)].Sum())];
        int tokens = boundaries[^1];
        Tensor[] inputs = [Normal(seed, tokens, heads, dim), Normal(seed + 1, tokens, kvHeads, dim), Normal(seed + 2, tokens, kvHeads, dim)];
        return ([.. inputs.Select(x => x.to(dtype))], boundaries);
    }

    private static Tensor Flash(Tensor[] qkv, int[] boundaries, int window = -1) =>
        Ops.FlashAttention(qkv[0], qkv[1], qkv[2], tensor(boundaries, int32), 1 / System.Math.Sqrt(qkv[0].size(2)), window);

    private static Tensor Math(Tensor[] qkv, int[] boundaries, int window = -1) =>
        MathAttention.Run(qkv[0], qkv[1], qkv[2], boundaries, 1 / System.Math.Sqrt(qkv[0].size(2)), window);
}
