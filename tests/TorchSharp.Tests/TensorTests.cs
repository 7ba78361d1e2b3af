using System.Runtime.InteropServices;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace TorchSharp.Tests;

public sealed class TensorTests : IDisposable
{
    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Fact]
    public void Factories_make_the_shape_dtype_and_values_that_were_asked_for()
    {
        Assert.Equal([2L, 3L], zeros(2, 3).shape);
        Assert.Equal([2L, 0L], zeros(2, 0).shape);
        Assert.Equal(ScalarType.Int64, arange(5).dtype);
        Assert.Equal([0, 0], full(1, 2, 0).view(2).to(int32).data<int>().ToArray());
        Assert.Equal([1f, 3f, 5f], arange(1f, 6f, 2f).data<float>().ToArray());
        Assert.Equal([7, 7], full(2, 7, ScalarType.Int32).data<int>().ToArray());
        Assert.Equal([1.0, 0.0, 0.0, 1.0], eye(2, dtype: float64).data<double>().ToArray());
        Assert.Equal([0f, 0.5f, 1f], linspace(0, 1, 3).data<float>().ToArray());
        Assert.Equal([1L, 2L, 3L, 4L], tensor(new long[] { 1, 2, 3, 4 }, [2, 2]).data<long>().ToArray());
        Assert.Equal([2L, 2L], tensor(new[,] { { 1f, 2f }, { 3f, 4f } }).shape);
        Assert.Equal([true, false], tensor([true, false]).data<bool>().ToArray());
        Assert.Equal(ScalarType.Int32, tensor(5).dtype);
        Assert.Empty(tensor(5f).shape);
        Assert.Equal(ScalarType.Float64, ones_like(zeros(2, dtype: float64)).dtype);
        Assert.Throws<ArgumentException>(() => tensor([1f, 2f], [3]));
        Tensor drawn = randint(3, 6, [100]);
        Assert.True(drawn.ge(3).all().ToBoolean() && drawn.lt(6).all().ToBoolean());
    }

    [Fact]
    public void Operators_mix_tensors_and_numbers_on_both_sides()
    {
        Tensor x = tensor([1f, 2f, 4f]);
        Assert.Equal([3f, 4f, 6f], (x + 2).data<float>().ToArray());
        Assert.Equal([1f, 0f, -2f], (2 - x).data<float>().ToArray());
        Assert.Equal([0f, 1f, 3f], (x - 1.0).data<float>().ToArray());
        Assert.Equal([3f, 6f, 12f], (3 * x).data<float>().ToArray());
        Assert.Equal([4f, 2f, 1f], (4 / x).data<float>().ToArray());
        Assert.Equal([1f, 4f, 16f], (x * x).data<float>().ToArray());
        Assert.Equal([-1f, -2f, -4f], (-x).data<float>().ToArray());
        Assert.Equal([1f, 2f, 1f], (x % 3).data<float>().ToArray());
        Assert.Equal([false, true, true], (x > 1).data<bool>().ToArray());
        Assert.Equal([true, true, false], (x <= 2).data<bool>().ToArray());
        Assert.Equal([false, true, false], ((x > 1) & (x < 4)).data<bool>().ToArray());
        Assert.Equal([2L, 0L], (tensor([5L, 1L]).div(2, RoundingMode.floor)).data<long>().ToArray());
    }

    [Fact]
    public void In_place_forms_change_and_return_the_tensor_itself()
    {
        Tensor x = tensor([1f, 2f]);
        Assert.Same(x, x.add_(1).mul_(tensor([2f, 3f])).sub_(1).div_(2));
        Assert.Equal([1.5f, 4f], x.data<float>().ToArray());
        Assert.Equal(4, x.Version());
        x.copy_(tensor([9L, 8L]));
        Assert.Equal([9f, 8f], x.data<float>().ToArray());
        Assert.Equal([0f, 0f], x.zero_().data<float>().ToArray());
        Assert.Equal([5f, 5f], x.fill_(5).data<float>().ToArray());
        Assert.Equal([11f, 17f], x.add_(tensor([2f, 4f]), 3).data<float>().ToArray());
    }

    [Fact]
    public void Element_functions_agree_with_the_runtimes()
    {
        double[] values = [0.25, 0.5, 1.5, 3];
        Tensor x = tensor(values);
        (Func<Tensor, Tensor> Ours, Func<double, double> Theirs)[] functions =
        [
            (t => t.exp(), Math.Exp), (t => t.log(), Math.Log), (t => t.sqrt(), Math.Sqrt), (t => t.sin(), Math.Sin),
            (t => t.cos(), Math.Cos), (t => t.tanh(), Math.Tanh), (t => t.rsqrt(), v => 1 / Math.Sqrt(v)),
            (t => t.sigmoid(), v => 1 / (1 + Math.Exp(-v))), (t => t.silu(), v => v / (1 + Math.Exp(-v))),
            (t => t.pow(3), v => v * v * v), (t => t.neg().abs(), Math.Abs), (t => t.square(), v => v * v),
            (t => t.clamp(0.4, 2), v => Math.Clamp(v, 0.4, 2)), (t => t.clamp(max: (Scalar)1), v => Math.Min(v, 1)),
        ];
        foreach ((Func<Tensor, Tensor> ours, Func<double, double> theirs) in functions)
        {
            Assert.Equal(values.Select(theirs), ours(x).data<double>().ToArray(), (a, b) => Math.Abs(a - b) < 1e-12);
        }
    }

    [Fact]
    public void Reductions_take_dimensions_dtypes_and_keepdim()
    {
        Tensor x = tensor([1f, 5f, 3f, 4f, 2f, 6f], [2, 3]);
        Assert.Equal(21f, x.sum().ToSingle());
        Assert.Equal([5f, 7f, 9f], x.sum(0).data<float>().ToArray());
        Assert.Equal([2L, 1L], x.sum(-1, keepdim: true).shape);
        Assert.Equal(ScalarType.Float64, x.sum(1, type: float64).dtype);
        Assert.Equal([3f, 4f], x.mean([1]).data<float>().ToArray());
        Assert.Equal(Math.Sqrt(3.5), x.std().ToDouble(), 6);
        Assert.Equal(Math.Sqrt(91), x.norm().ToDouble(), 5);
        Assert.Equal(6f, x.max().ToSingle());
        (Tensor values, Tensor indexes) = x.max(1);
        Assert.Equal([5f, 6f], values.data<float>().ToArray());
        Assert.Equal([1L, 2L], indexes.data<long>().ToArray());
        Assert.Equal([4f, 5f, 6f], x.amax([0]).data<float>().ToArray());
        Assert.Equal(5L, x.argmax().ToInt64());
        Assert.Equal([0L, 1L], x.argmin(1).data<long>().ToArray());
        Assert.Equal([1f, 6f, 9f], x[0].cumsum(0).data<float>().ToArray());
        (Tensor top, Tensor where) = x.topk(2);
        Assert.Equal([5f, 3f, 6f, 4f], top.data<float>().ToArray());
        Assert.Equal([1L, 2L, 2L, 0L], where.data<long>().ToArray());
        Assert.Equal([0L, 2L, 1L], x[0].argsort().data<long>().ToArray());
        Assert.True(tensor([1f, float.NaN]).isnan().any().ToBoolean());
        Assert.False(tensor([1f, float.PositiveInfinity]).isfinite().all().ToBoolean());
    }

    [Fact]
    public void Products_of_matrices_agree_with_hand_computed_ones()
    {
        Tensor a = tensor([1f, 2f, 3f, 4f], [2, 2]), b = tensor([5f, 6f, 7f, 8f], [2, 2]);
        float[] product = [19f, 22f, 43f, 50f];
        Assert.Equal(product, a.matmul(b).data<float>().ToArray());
        Assert.Equal(product, torch.mm(a, b).data<float>().ToArray());
        Assert.Equal(product, torch.bmm(a.unsqueeze(0), b.unsqueeze(0)).data<float>().ToArray());
        Assert.Equal(product, torch.einsum("ij,jk->ik", a, b).data<float>().ToArray());
        Assert.Equal([20f, 23f, 44f, 51f], ones(2, 2).addmm(a, b).data<float>().ToArray());
        Assert.Equal([39f, 45f, 87f, 101f], ones(2, 2).addmm_(a, b, beta: 1, alpha: 2).data<float>().ToArray());
        Assert.Equal([19.5f, 22.5f, 43.5f, 50.5f], ones(1, 2, 2).baddbmm(a.unsqueeze(0), b.unsqueeze(0), beta: 0.5f).data<float>().ToArray());
        Assert.Equal([3f, 4f, 6f, 8f], torch.outer(tensor([1f, 2f]), tensor([3f, 4f])).data<float>().ToArray());
    }

    [Fact]
    public void Views_share_memory_and_copies_do_not()
    {
        Tensor x = arange(6, float32).view(2, 3);
        Tensor transposed = x.t();
        Assert.False(transposed.is_contiguous());
        Assert.Equal([1L, 3L], transposed.stride());
        Assert.Equal([0f, 3f, 1f, 4f, 2f, 5f], transposed.data<float>().ToArray());
        Assert.Equal(4f, transposed.data<float>()[1, 1]);
        x.narrow(1, 1, 2).zero_();
        Assert.Equal([0f, 0f, 0f, 3f, 0f, 0f], x.data<float>().ToArray());
        Tensor copy = x.clone();
        x.fill_(1);
        Assert.Equal(3f, copy[1, 0].ToSingle());
        Assert.Equal(x.DataPointer + 2 * sizeof(float), x.select(1, 2).DataPointer);
        Assert.Equal([3L, 1L, 2L], x.unsqueeze(0).permute(2, 0, 1).shape);
        Assert.Equal([2L, 3L, 2L], x.unsqueeze(-1).expand(-1, -1, 2).shape);
        Assert.Equal([6L], x.flatten().shape);
        Assert.Equal([2L, 3L, 1L], x.unflatten(-1, 3, 1).shape);
        Assert.Equal([1L, 2L], x.split(2, 1).Reverse().Select(part => part.size(1)));
        Assert.Equal([1L, 2L], x.split([1L, 2L], 1).Select(part => part.size(1)));
        Assert.Equal(2, x.chunk(2).Length);
        Assert.Equal(3, x.unbind(1).Length);
        Assert.Equal([4L, 3L], torch.cat([x, x]).shape);
        Assert.Equal([2L, 2L, 3L], torch.stack([x, x], 1).shape);
        Assert.Throws<ArgumentOutOfRangeException>(() => x.size(2));
    }

    [Fact]
    public void Indexing_reads_and_writes_like_numpy()
    {
        Tensor x = arange(24, int64).view(2, 3, 4);
        Assert.Equal(23L, x[1, 2, 3].ToInt64());
        Assert.Equal(23L, x[^1, ^1, ^1].ToInt64());
        Assert.Equal([1L, 5L, 9L], x[0, .., 1].data<long>().ToArray());
        Assert.Equal([2L, 3L, 2L], x[TensorIndex.Ellipsis, 1..3].shape);
        Assert.Equal([2L, 3L, 2L], x[TensorIndex.Ellipsis, TensorIndex.Slice(step: 2)].shape);
        Assert.Equal([1L, 2L, 3L, 4L], x[TensorIndex.None].shape);
        Assert.Equal([2L, 3L, 1L, 4L], x[TensorIndex.Colon, TensorIndex.Colon, TensorIndex.Null].shape);
        Assert.Equal([12L, 0L], x[tensor([1L, 0L]), 0, 0].data<long>().ToArray());
        Assert.Equal([21L, 22L, 23L], x[x > 20].data<long>().ToArray());
        Assert.Equal([1L, 2L, 3L, 4L], x[true].shape);

        x[0, TensorIndex.Colon, 0] = tensor([-1L, -2L, -3L]);
        Assert.Equal([-1L, -2L, -3L], x[0, .., 0].data<long>().ToArray());
        x[x > 20] = tensor(0L);
        Assert.Equal(20L, x.max().ToInt64());
        x.index_put_(7, 1, 1);
        Assert.Equal([7L, 7L, 7L, 7L], x[1, 1].data<long>().ToArray());
    }

    [Fact]
    public void Gathering_and_scattering_follow_their_indices()
    {
        Tensor x = tensor([10f, 20f, 30f, 40f], [2, 2]), index = tensor([1L, 0L], [2, 1]);
        Assert.Equal([20f, 30f], x.gather(1, index).data<float>().ToArray());
        Assert.Equal([0f, 5f, 6f, 0f], zeros(2, 2).scatter_(1, index, tensor([5f, 6f], [2, 1])).data<float>().ToArray());
        Assert.Equal([30f, 40f, 10f, 20f], x.index_select(0, tensor([1L, 0L])).data<float>().ToArray());
        Assert.Equal([0f, 2f, 6f], zeros(3).index_add_(0, tensor([1L, 2L, 2L]), tensor([1f, 1f, 2f]), 2).data<float>().ToArray());
        Assert.Equal([1f, 0f], tensor([1f, 2f]).masked_fill(tensor([false, true]), 0).data<float>().ToArray());
        Assert.Equal([1f, 9f], torch.where(tensor([true, false]), tensor([1f, 2f]), tensor([8f, 9f])).data<float>().ToArray());
        Assert.Equal([1f, 0f, 1f, 1f], torch.tril(ones(2, 2)).data<float>().ToArray());
        Assert.Equal([1f, 1f, 0f, 1f], torch.triu(ones(2, 2)).data<float>().ToArray());
    }

    [Fact]
    public void Dtypes_convert_with_the_formats_own_rounding()
    {
        Tensor x = tensor([1.00390625f, 1.01171875f, -3.7f, 65504f]);
        Tensor half = x.to(bfloat16);
        Assert.Equal(2, half.ElementSize);
        // Both lie halfway between two bfloat16 numbers: ties go to the even mantissa.
        Assert.Equal([1f, 1.015625f], half.to(float32).data<float>().ToArray()[..2]);
        Assert.Equal(half.data<BFloat16>().ToArray().Select(value => (float)value), half.to(float32).data<float>().ToArray());
        Assert.Equal(x.data<float>().ToArray().Select(value => (BFloat16)value), half.data<BFloat16>().ToArray());
        Assert.Equal((Half)65504f, x.to(float16).data<Half>().ToArray()[3]);
        Assert.Equal(-3L, x.to(int64)[2].ToInt64());
        Assert.Equal([true, false], tensor([2f, 0f]).to(@bool).data<bool>().ToArray());
        Assert.True(float.IsNaN((BFloat16)float.NaN));
        Assert.Equal(-3.703125f, half[2].item<BFloat16>());
        Assert.Throws<ArgumentException>(() => x.item<int>());
        Assert.Throws<ArgumentException>(() => x.data<double>());
    }

    [Fact]
    public unsafe void Memory_is_wrapped_and_copied_by_pointer()
    {
        var memory = (float*)NativeMemory.AllocZeroed(6, sizeof(float));
        int released = 0;
        Tensor wrapped = Memory.FromBlob((nint)memory, [2, 3], float32, () => released++);
        Assert.Equal((nint)memory, wrapped.DataPointer);
        wrapped.fill_(2);
        Assert.Equal(2f, memory[5]);
        Tensor view = wrapped[0];
        wrapped.Dispose();
        Assert.Equal(0, released);
        view.Dispose();
        Assert.Equal(1, released);
        Assert.Throws<TorchException>(() => Memory.FromBlob((nint)memory, [-1], float32, () => released++));
        Assert.Equal(2, released);

        Tensor transposed = arange(6, float32).view(2, 3).t();
        transposed.CopyTo((nint)memory, 24);
        Assert.Equal([0f, 3f, 1f, 4f, 2f, 5f], new ReadOnlySpan<float>(memory, 6).ToArray());
        Tensor target = zeros(6, dtype: bfloat16).to(float32);
        target.CopyFrom((nint)memory, 24);
        Assert.True(target.view(3, 2).SameAs(transposed));
        Assert.Throws<ArgumentException>(() => target.CopyFrom((nint)memory, 20));
        target.bytes[3] = 0x40;
        Assert.Equal(2f, target[0].ToSingle());
        NativeMemory.Free(memory);
    }

    [Fact]
    public void The_same_seed_gives_the_same_numbers_and_a_state_continues_them()
    {
        manual_seed(7);
        Tensor first = randn(4), state = get_rng_state(), next = rand(3);
        manual_seed(7);
        Assert.True(first.SameAs(randn(4)));
        Assert.True(next.SameAs(rand(3)));
        set_rng_state(state);
        Assert.True(next.SameAs(rand(3)));

        using var generator = new Generator(11);
        using var twin = new Generator(11);
        _ = rand(5);
        Assert.True(randperm(10, generator: generator).SameAs(randperm(10, generator: twin)));
        Assert.False(zeros(8).normal_(generator: generator).SameAs(zeros(8).normal_(generator: generator)));
        Assert.Equal([2L, 2L, 2L], torch.multinomial(tensor([0f, 0f, 1f]), 3, replacement: true).data<long>().ToArray());
        Assert.Equal(0.3, zeros(20_000).bernoulli_(0.3, generator).mean().ToDouble(), 1);
    }

    [Fact]
    public void Functional_layers_agree_with_their_definitions()
    {
        Tensor x = randn(3, 4, dtype: float64), weight = randn(5, 4, dtype: float64), bias = randn(5, dtype: float64);
        Assert.True(nn.functional.linear(x, weight, bias).allclose(x.matmul(weight.t()) + bias));
        Tensor ids = tensor([4L, 0L, 4L]);
        Assert.True(nn.functional.embedding(ids, weight).SameAs(weight[ids]));
        Tensor logits = randn(4, 6, dtype: float64), labels = tensor([5L, 0L, -100L, 2L]);
        Tensor log = logits.log_softmax(-1);
        double expected = -(log[0, 5].ToDouble() + log[1, 0].ToDouble() + log[3, 2].ToDouble());
        Assert.Equal(expected / 3, nn.functional.cross_entropy(logits, labels).ToDouble(), 10);
        Assert.Equal(expected, nn.functional.cross_entropy(logits, labels, reduction: nn.Reduction.Sum).ToDouble(), 10);
        Assert.Equal(0.0, nn.functional.cross_entropy(logits, labels, reduction: nn.Reduction.None)[2].ToDouble());
        Assert.True(logits.softmax(1).allclose(log.exp()));
        Tensor normal = nn.functional.layer_norm(x, [4]);
        Assert.Equal(0.0, normal.mean().ToDouble(), 10);
        Assert.True(nn.functional.dropout(x, 0.5, training: false).SameAs(x));
        Tensor dropped = nn.functional.dropout(ones(1000), 0.25, training: true);
        Assert.Equal(1 / 0.75f, dropped.max().ToSingle(), 5);
        Assert.InRange(dropped.eq(0).sum().ToInt64(), 150, 350);
    }

    [Fact]
    public void The_library_states_the_libtorch_it_runs_on()
    {
        Assert.Matches(@"^\d+\.\d+\.\d+$", built_version);
        Assert.Contains("libtorch_cpu.so", loaded_path, StringComparison.Ordinal);
        Assert.StartsWith(string.Join('.', loaded_version.Split('.').Take(2)), built_version, StringComparison.Ordinal);
        int threads = get_num_threads();
        set_num_threads(1);
        Assert.Equal(1, get_num_threads());
        set_num_threads(threads);
        Assert.Equal(cuda.device_count() > 0, cuda.is_available());
    }
}
