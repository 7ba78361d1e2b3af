using TorchSharp.Extras;
using static TorchSharp.torch;

namespace TorchSharp.Tests;

public sealed class ProductTests : IDisposable
{
    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Fact]
    public void Columns_of_matrices_are_multiplied_where_they_lie_and_nothing_beside_them_changes()
    {
        Tensor left = randn([5, 9], ScalarType.Float32), right = randn([4, 7], ScalarType.Float32), into = full([5, 8], 3.0, ScalarType.Float32);
        Fused.Product(new Columns(left, 2, 4), new Columns(right, 1, 3), new Columns(into, 4, 3), scale: 2, accumulate: true);
        Tensor expected = full([5, 8], 3.0, ScalarType.Float32);
        expected.narrow(1, 4, 3).add_(left.narrow(1, 2, 4).mm(right.narrow(1, 1, 3)) * 2);
        Assert.True((into - expected).abs().max().ToSingle() < 1e-5);
        Assert.Equal(3, into[0, 0].ToSingle());
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Transposed_factors_and_a_wider_result(bool accumulate)
    {
        Tensor left = randn([6, 5], ScalarType.Float32).to(ScalarType.BFloat16), right = randn([6, 4], ScalarType.Float32).to(ScalarType.BFloat16);
        // What is not added to is not read: it may be anything.
        Tensor into = full([5, 4], accumulate ? 1 : double.NaN, ScalarType.Float32);
        Fused.Product(((Columns)left).Transposed, right, into, scale: 0.5, accumulate);
        Tensor expected = left.to(ScalarType.Float32).t().mm(right.to(ScalarType.Float32)) * 0.5 + (accumulate ? 1 : 0);
        Assert.True((into - expected).abs().max().ToSingle() < 0.05);
    }

    [Fact]
    public void Autograd_does_not_see_it()
    {
        Tensor left = ones(2, 2).requires_grad_(), into = zeros(2, 2);
        Fused.Product(left, ones(2, 2), into, scale: 1, accumulate: false);
        Assert.False(into.requires_grad);
        Assert.Equal(2, into[1, 1].ToSingle());
    }

    [Fact]
    public void Shapes_that_do_not_fit_are_told()
    {
        Assert.StartsWith("product: ", Assert.Throws<TorchException>(() => Fused.Product(ones(2, 3), ones(2, 3), zeros(2, 3), 1, false)).Message, StringComparison.Ordinal);
        Assert.Contains("matrices are wanted", Assert.Throws<TorchException>(() => Fused.Product(new Columns(ones(3), 0, 1), ones(2, 3), zeros(2, 3), 1, false)).Message, StringComparison.Ordinal);
        Assert.StartsWith("product: ", Assert.Throws<TorchException>(() => Fused.Product(new Columns(ones(2, 3), 2, 2), ones(2, 3), zeros(2, 3), 1, false)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Many_tensors_are_copied_and_scaled_together()
    {
        Tensor[] sources = [ones(3), ones(2, 2) * 2], targets = [zeros([3], ScalarType.BFloat16), zeros(2, 2)];
        Fused.Copy(targets, Fused.Scale(sources, 3));
        Assert.Equal([3, 3, 3], targets[0].to(ScalarType.Float32).data<float>().ToArray());
        Assert.Equal([6, 6, 6, 6], targets[1].data<float>().ToArray());
        Fused.Copy([], Fused.Scale([], 2));
    }

    [Fact]
    public void A_change_through_the_pointer_can_be_counted()
    {
        Tensor value = ones(2);
        long before = value.Version();
        value.BumpVersion();
        Assert.Equal(before + 1, value.Version());
        Assert.Equal(before + 1, value.detach().Version());
    }

    [Fact]
    public void Memory_as_it_comes_has_the_type_and_shape_that_were_asked_for()
    {
        Assert.Equal((ScalarType.Float32, 2L), (empty(2, 3).dtype, empty(2, 3).size(0)));
        Assert.Equal(ScalarType.Int64, empty([0], ScalarType.Int64).dtype);
        Assert.Equal(1, empty(Array.Empty<long>()).NumberOfElements);
        Assert.Throws<TorchException>(() => empty([-1]));
    }
}
