using TorchSharp.Modules;
using static TorchSharp.torch;

namespace TorchSharp.Tests;

public sealed class ModuleTests
{
    [Fact]
    public void Components_are_registered_by_field_name_and_survive_the_scope()
    {
        using Tower tower = Build();
        Assert.Equal(["scale", "embedding.weight", "linear.weight", "linear.bias"], tower.named_parameters().Select(p => p.name));
        Assert.Equal(["scale", "embedding.weight", "linear.weight", "linear.bias", "offset"], tower.state_dict().Keys);
        Assert.Equal(["embedding", "linear"], tower.named_modules().Select(m => m.name));
        Assert.All(tower.parameters(), parameter => Assert.False(parameter.IsInvalid));
        using DisposeScope scope = NewDisposeScope();
        Assert.Equal([2L, 3L], tower.call(tensor([0L, 4L])).shape);

        static Tower Build()
        {
            using DisposeScope scope = NewDisposeScope();
            return new Tower();
        }
    }

    [Fact]
    public void Disposing_a_module_frees_every_tensor_of_the_tree()
    {
        long before = LiveTensors;
        new Tower().Dispose();
        Assert.Equal(before, LiveTensors);
    }

    [Fact]
    public void Training_mode_reaches_the_children()
    {
        using var tower = new Tower();
        Assert.True(tower.training);
        tower.eval();
        Assert.All(tower.modules(), module => Assert.False(module.training));
    }

    [Fact]
    public void Conversion_keeps_the_parameter_objects()
    {
        using var tower = new Tower();
        Parameter[] before = [.. tower.parameters()];
        Assert.Same(tower, tower.to(ScalarType.BFloat16));
        Assert.Equal(before, tower.parameters());
        Assert.All(before, parameter => Assert.Equal(bfloat16, parameter.dtype));
        Assert.All(before, parameter => Assert.True(parameter.requires_grad));
        Assert.Equal(int64, tower.state_dict()["offset"].dtype);
    }

    [Fact]
    public void A_state_that_does_not_fit_is_refused_by_name()
    {
        using Tower a = new(), b = new();
        Dictionary<string, Tensor> state = a.state_dict();
        b.load_state_dict(state);
        Assert.Equal(a.get_parameter("linear.weight")!.data<float>().ToArray(), b.get_parameter("linear.weight")!.data<float>().ToArray());
        state.Remove("scale");
        Assert.Contains("missing [scale]", Assert.Throws<InvalidOperationException>(() => b.load_state_dict(state)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Initialisation_stays_in_its_bounds()
    {
        using Tensor weight = empty(300, 100);
        nn.init.kaiming_uniform_(weight, Math.Sqrt(5));
        using Tensor largest = weight.abs().max();
        Assert.InRange(largest.ToDouble(), 0.099, 0.1);
        nn.init.normal_(weight, 2, 0.5);
        Assert.Equal(2, weight.mean().ToDouble(), 1);
        Assert.Equal(0.5, weight.std().ToDouble(), 1);
        nn.init.ones_(weight);
        Assert.Equal(30_000, weight.sum().ToDouble());
    }

    private sealed class Tower : nn.Module<Tensor, Tensor>
    {
        private readonly Embedding embedding = nn.Embedding(5, 4);
        private readonly Linear linear = nn.Linear(4, 3);
        private readonly Parameter scale = nn.Parameter(ones(3));
        private readonly Tensor offset = tensor([1L, 2L, 3L]);

        public Tower() : base(nameof(Tower)) => RegisterComponents();

        public override Tensor forward(Tensor input) => linear.call(embedding.call(input)) * scale + offset;
    }
}
