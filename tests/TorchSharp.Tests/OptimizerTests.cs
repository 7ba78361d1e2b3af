using TorchSharp.Modules;
using static TorchSharp.torch;

namespace TorchSharp.Tests;

public sealed class OptimizerTests
{
    [Fact]
    public void AdamW_follows_its_formula_in_double()
    {
        const double lr = 0.1, beta1 = 0.8, beta2 = 0.9, eps = 1e-6, decay = 0.05;
        using DisposeScope scope = NewDisposeScope();
        var parameter = new Parameter(tensor([1.0, -2.0]));
        using optim.Optimizer optimizer = optim.AdamW([parameter], lr, beta1, beta2, eps, decay);
        double[] expected = [1.0, -2.0], first = [0, 0], second = [0, 0];
        for (int step = 1; step <= 5; step++)
        {
            (parameter.square().sum() * step).backward();
            double[] gradient = [.. expected.Select(value => 2 * value * step)];
            for (int i = 0; i < 2; i++)
            {
                first[i] = beta1 * first[i] + (1 - beta1) * gradient[i];
                second[i] = beta2 * second[i] + (1 - beta2) * gradient[i] * gradient[i];
                double unbiasedFirst = first[i] / (1 - Math.Pow(beta1, step)), unbiasedSecond = second[i] / (1 - Math.Pow(beta2, step));
                expected[i] -= lr * decay * expected[i];
                expected[i] -= lr * unbiasedFirst / (Math.Sqrt(unbiasedSecond) + eps);
            }
            optimizer.step();
            optimizer.zero_grad();
            Assert.Null(parameter.grad);
            Assert.Equal(expected, parameter.data<double>().ToArray(), (a, b) => Math.Abs(a - b) < 1e-12);
        }
    }

    [Fact]
    public void SGD_with_momentum_follows_its_formula()
    {
        using DisposeScope scope = NewDisposeScope();
        var parameter = new Parameter(tensor([1.0]));
        using optim.Optimizer optimizer = optim.SGD([parameter], 0.1, momentum: 0.5, weight_decay: 0.2);
        double expected = 1, velocity = 0;
        for (int step = 0; step < 4; step++)
        {
            (parameter * 3).sum().backward();
            optimizer.step();
            optimizer.zero_grad();
            velocity = 0.5 * velocity + 3 + 0.2 * expected;
            expected -= 0.1 * velocity;
            Assert.Equal(expected, parameter.ToDouble(), 12);
        }
    }

    [Fact]
    public void Clipping_scales_to_the_common_norm_and_leaves_small_gradients_alone()
    {
        using DisposeScope scope = NewDisposeScope();
        Parameter a = new(ones(2)), b = new(ones(1));
        a.grad = tensor([3f, 0f]);
        b.grad = tensor([4f]);
        Assert.Equal(5.0, nn.utils.clip_grad_norm_([a, b], 1.0), 6);
        Assert.Equal(0.6f, a.grad!.data<float>()[0], 5);
        Assert.Equal(0.8f, b.grad!.ToSingle(), 5);
        Assert.Equal(1.0, nn.utils.clip_grad_norm_([a, b], 2.0), 5);
        Assert.Equal(0.8f, b.grad!.ToSingle(), 5);
    }
}
