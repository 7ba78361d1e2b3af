using Trainer.Contracts;
using Trainer.Worker.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Verification;

/// <summary>
/// How far rounding alone may carry each trained weight. AdamW moves a weight by learning rate * m / (sqrt(v) + epsilon), about
/// g / |g| at first: where a gradient is no larger than the float32 rounding of the sums that it comes from, its sign is
/// rounding, and so is the direction of the step. Everywhere else the step hardly feels it.
/// </summary>
/// <param name="gradientNoise">The rounding of each tensor's gradients: the most by which they differ from the golden ones.</param>
public sealed class UpdateNoise(OptimizerConfig config, IReadOnlyDictionary<string, double> gradientNoise) : IDisposable
{
    private readonly Dictionary<string, Tensor> _bounds = [];

    /// <summary>Call after each step: adds what gradients off by their noise would change of it.</summary>
    /// <param name="step">1-based.</param>
    public void Add(Training.AdamW optimizer, int step)
    {
        using var _ = no_grad();
        foreach (NamedTensor tensor in optimizer.Trained)
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor[] state = [.. optimizer.State(tensor).Select(entry => entry.Tensor)];
            Tensor mean = state[1] / (1 - Math.Pow(config.Beta1, step));
            Tensor denominator = (state[2] / (1 - Math.Pow(config.Beta2, step))).sqrt() + config.Epsilon;
            // With D the denominator, |d(m/D)| <= (1 + |m/D|) * noise / D to first order, since the weights of the gradients in m add
            // up to one, as those of their squares in v do. A step in the other direction is all that it can be.
            Tensor change = ((mean / denominator).abs() + 1) * gradientNoise[tensor.Name] / denominator;
            Tensor added = change.clamp_max(2) * config.LearningRate;
            Tensor total = _bounds.TryGetValue(tensor.Name, out Tensor? before) ? before + added : added;
            before?.Dispose();
            _bounds[tensor.Name] = total.DetachFromDisposeScope();
        }
    }

    /// <summary>Of a trained tensor's elements.</summary>
    public Tensor Of(string name) => _bounds[name];

    /// <summary>Of the weight's change that the adapter stands for: scale * B A, [outputs, inputs].</summary>
    public Tensor OfDelta(LoraAdapter adapter)
    {
        Tensor a = Of($"base_model.model.{adapter.FullName}.lora_A.weight"), b = Of($"base_model.model.{adapter.FullName}.lora_B.weight");
        return (matmul(b, adapter.A.abs() + a) + matmul(adapter.B.abs(), a)) * adapter.Scale;
    }

    public void Dispose()
    {
        foreach (Tensor bound in _bounds.Values)
        {
            bound.Dispose();
        }
    }
}
