using Trainer.Worker.Kernels;
using static Trainer.Worker.Tests.Kernels.Differentiation;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Kernels;

public sealed class QkvAttentionTests : IDisposable
{
    private const double Epsilon = 1e-6;

    private readonly TorchSharp.DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Theory]
    [InlineData(4, 2, 16, false, -1)]
    [InlineData(4, 2, 16, true, -1)]
    [InlineData(3, 3, 64, true, 7)]
    [InlineData(7, 1, 32, false, 9)]
    public void It_has_the_bits_of_its_parts_one_after_another(int heads, int kvHeads, int size, bool norms, int window)
    {
        int[] lengths = [9, 0, 1, 30];
        Tensor boundaries = Boundaries(lengths);
        long tokens = lengths.Sum();
        foreach (ScalarType dtype in new[] { float32, bfloat16 })
        {
            Tensor[] inputs = [Normal(1, tokens, (heads + (2 * kvHeads)) * size), .. norms ? [Normal(2, size), Normal(3, size)] : Array.Empty<Tensor>()];
            (Tensor cos, Tensor sin) = Angles(tokens, size);
            Tensor[] together = Run(x => [Ops.QkvAttention(x[0], norms ? x[1] : null, norms ? x[2] : null, cos, sin, boundaries, new(heads, kvHeads, Epsilon, 0.3, window))], dtype, inputs);
            Tensor[] apart = Run(x => [Parts(x)], dtype, inputs);
            Assert.Equal(inputs.Length + 1, together.Length);
            Assert.All(together.Zip(apart), pair => Assert.Equal(0, LargestError(pair.First, pair.Second)));
            Assert.True(Largest(together[1]) > 0.1);

            Tensor Parts(Tensor[] x)
            {
                Tensor[] parts = x[0].split([heads * size, kvHeads * size, kvHeads * size], 1);
                Tensor q = parts[0].view(tokens, heads, size), k = parts[1].view(tokens, kvHeads, size), v = parts[2].view(tokens, kvHeads, size);
                if (norms)
                {
                    (q, k) = (Ops.RmsNorm(q, x[1], Epsilon), Ops.RmsNorm(k, x[2], Epsilon));
                }

                return Ops.FlashAttention(Ops.Rotary(q, cos, sin), Ops.Rotary(k, cos, sin), v, boundaries, 0.3, window).reshape(tokens, heads * size);
            }
        }
    }

    [Fact]
    public void Frozen_norms_get_no_gradient_and_the_rows_theirs()
    {
        (Tensor cos, Tensor sin) = Angles(5, 8);
        Tensor qkv = Normal(1, 5, 32).requires_grad_(), norm = Normal(2, 8);
        Ops.QkvAttention(qkv, norm, norm, cos, sin, Boundaries(5), new(2, 1, Epsilon, 1)).sum().backward();
        Assert.Null(norm.grad);
        Assert.Equal(qkv.shape, qkv.grad!.shape);
    }

    [Fact]
    public void No_tokens_are_no_fault()
    {
        (Tensor cos, Tensor sin) = Angles(0, 8);
        Tensor qkv = zeros([0, 32], float32).requires_grad_();
        Tensor result = Ops.QkvAttention(qkv, null, null, cos, sin, Boundaries(0), new(2, 1, Epsilon, 1));
        Assert.Equal([0, 16], result.shape);
        result.sum().backward();
        Assert.Equal([0, 32], qkv.grad!.shape);
    }

    [Fact]
    public void Bad_arguments_are_refused_by_name()
    {
        (Tensor cos, Tensor sin) = Angles(5, 8);
        void Refused(string message, Action call) => Assert.Contains(message, Assert.Throws<ArgumentException>(call).Message, StringComparison.Ordinal);
        Refused("qkv_TE must have shape [any, 32]", () => Ops.QkvAttention(zeros(5, 40), null, null, cos, sin, Boundaries(5), new(2, 1, Epsilon, 1)));
        Refused("weight must have shape [8]", () => Ops.QkvAttention(zeros(5, 32), ones(7), ones(7), cos, sin, Boundaries(5), new(2, 1, Epsilon, 1)));
        Refused("cos_TH2 must have shape [5, 4]", () => Ops.QkvAttention(zeros(5, 32), null, null, cos.narrow(0, 0, 4), sin, Boundaries(5), new(2, 1, Epsilon, 1)));
        Assert.Throws<KernelException>(() => Ops.QkvAttention(zeros(5, 32), null, null, cos, sin, Boundaries(4), new(2, 1, Epsilon, 1)));
    }

    private static Tensor Boundaries(params int[] lengths) =>
        tensor([0, .. lengths.Select((_, i) => lengths[..(i + 1)].Sum())]);

    private static (Tensor Cos, Tensor Sin) Angles(long tokens, int size)
    {
        Tensor angles = arange(tokens * size / 2, dtype: float32).view(tokens, size / 2) * 0.1;
        return (angles.cos(), angles.sin());
    }
}
