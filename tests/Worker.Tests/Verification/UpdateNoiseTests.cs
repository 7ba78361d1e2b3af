using Trainer.Contracts;
using Trainer.Worker.Model;
using Trainer.Worker.Verification;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Verification;

public sealed class UpdateNoiseTests
{
    private const double Rate = 1e-3, Noise = 1e-9;

    [Fact]
    public void Gradients_above_their_noise_allow_next_to_nothing_and_those_within_it_a_step_in_the_other_direction()
    {
        double[] bounds = Bounds([1e-3f, 1e-6f, 1e-10f, 0], steps: 1);
        Assert.InRange(bounds[0], 0, 1e-5 * Rate);
        Assert.InRange(bounds[1], 1e-3 * Rate, 3e-3 * Rate);
        Assert.InRange(bounds[2], 0.05 * Rate, 2 * Rate);
        Assert.InRange(bounds[3], 0.05 * Rate, 2 * Rate);
    }

    [Theory]
    [InlineData(2e-9f)]
    [InlineData(3e-8f)]
    [InlineData(1e-6f)]
    public void Steps_from_gradients_that_differ_by_the_noise_differ_by_no_more(float gradient)
    {
        const int Steps = 6;
        double bound = Bounds([gradient], Steps)[0];
        // Every pattern of signs that the noise can have.
        double[] ends = [.. Enumerable.Range(0, 1 << Steps).Select(signs => Weight(step => gradient + (float)((signs >> (step - 1) & 1) == 0 ? Noise : -Noise), Steps))];
        double apart = (ends.Max() - ends.Min()) / 2;
        Assert.InRange(apart, 0, bound + 1e-7);
        // It adds the worst of each step, which no pattern has.
        Assert.InRange(bound, 0, (64 * apart) + 1e-7);
    }

    private static double[] Bounds(float[] gradient, int steps)
    {
        using DisposeScope scope = NewDisposeScope();
        using var noise = new UpdateNoise(new OptimizerConfig { LearningRate = Rate }, new Dictionary<string, double> { ["x"] = Noise });
        Train(_ => gradient, steps, noise);
        return [.. noise.Of("x").to(ScalarType.Float64).data<double>()];
    }

    private static double Weight(Func<int, float> gradient, int steps)
    {
        using DisposeScope scope = NewDisposeScope();
        return Train(step => [gradient(step)], steps, null).detach().to(ScalarType.Float64).data<double>()[0];
    }

    private static Parameter Train(Func<int, float[]> gradient, int steps, UpdateNoise? noise)
    {
        var config = new OptimizerConfig { LearningRate = Rate };
        var parameter = new Parameter(zeros([gradient(1).Length]));
        using var optimizer = new Trainer.Worker.Training.AdamW([new NamedTensor("x", parameter, 0, parameter.numel())], config);
        for (int step = 1; step <= steps; step++)
        {
            parameter.grad = tensor(gradient(step));
            optimizer.Step(step, Rate, 1);
            noise?.Add(optimizer, step);
        }

        return parameter;
    }
}
