using Trainer.Contracts;
using Trainer.Worker.Distributed;
using Trainer.Worker.Kernels;
using Trainer.Worker.Model;
using TorchSharp;
using TorchSharp.Extras;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Trainer.Worker.Training;

/// <summary>AdamW over the trained parameters with float32 moments; bfloat16 parameters keep a float32 master copy.</summary>
public sealed class AdamW : IDisposable
{
    private readonly OptimizerConfig _config;
    private readonly List<Slot> _slots;
    private readonly Dictionary<Parameter, Slot> _byParameter;

    /// <param name="sums">
    /// Whether a step has the gradients of several backward passes, or of several ranks: those of bfloat16 parameters are then added up
    /// in float32. False: what one backward pass leaves in a parameter is its gradient, which spares four bytes an element.
    /// </param>
    public AdamW(IEnumerable<NamedTensor> trained, OptimizerConfig config, bool sums = true)
    {
        _config = config;
        Trained = [.. trained];
        _slots = [.. Trained.Select(tensor => tensor.Parameter).Distinct().Select(parameter => new Slot(parameter, sums))];
        _byParameter = _slots.ToDictionary(slot => slot.Parameter);
    }

    public IReadOnlyList<NamedTensor> Trained { get; }

    /// <summary>Call after each backward: moves bfloat16 gradients into their float32 sums, where there are such.</summary>
    public void AccumulateGradients()
    {
        using DisposeScope scope = NewDisposeScope();
        foreach (Slot slot in _slots)
        {
            if (slot.Sum is { } sum && slot.Parameter.grad is { } added)
            {
                AdamWKernel.Accumulate(sum, added);
                slot.Parameter.grad = null;
            }
        }
    }

    /// <summary>Call after the last backward of a step: every rank gets the gradients of all ranks together.</summary>
    public void SumGradients(ICommunicator ranks)
    {
        if (ranks.WorldSize == 1)
        {
            return;
        }

        using DisposeScope scope = NewDisposeScope();
        ranks.AllReduceSum([.. _slots.Select(slot => slot.Gradient())]);
    }

    /// <summary>L2 norm of all gradients together.</summary>
    public double GradientNorm()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] gradients = [.. _slots.Select(slot => slot.Gradient())];
        return gradients is [{ device_type: DeviceType.CUDA }, ..]
            ? Fused.Norm(gradients).ToDouble()
            : Math.Sqrt(gradients.Sum(AdamWKernel.SumOfSquares));
    }

    /// <summary>The first trained tensor whose gradient is not finite, by its Hugging Face name.</summary>
    public string? FirstNonFinite() =>
        Trained.FirstOrDefault(tensor => !double.IsFinite(AdamWKernel.SumOfSquares(tensor.Slice(Gradient(tensor)))))?.Name;

    /// <summary>One update with every gradient multiplied by <paramref name="gradientScale"/>; the gradients are zero, or gone, after it.</summary>
    /// <param name="step">1-based, for the bias correction.</param>
    public void Step(int step, double learningRate, double gradientScale)
    {
        using DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        AdamWKernel.Step(
            [.. _slots.Select(slot => new AdamWTensors(slot.Master, slot.ExpAvg, slot.ExpAvgSq, slot.Gradient(), slot.IsLowPrecision ? slot.Parameter : null))],
            learningRate, _config.Beta1, _config.Beta2, _config.Epsilon, _config.WeightDecay, step, gradientScale);
        _slots.ForEach(slot => slot.Forget());
    }

    /// <summary>What a checkpoint holds of a trained tensor: the weight in float32 and both moments.</summary>
    public IEnumerable<(string Name, Tensor Tensor)> State(NamedTensor tensor)
    {
        Slot slot = _byParameter[tensor.Parameter];
        yield return (tensor.Name, tensor.Slice(slot.Master));
        yield return ($"exp_avg.{tensor.Name}", tensor.Slice(slot.ExpAvg));
        yield return ($"exp_avg_sq.{tensor.Name}", tensor.Slice(slot.ExpAvgSq));
    }

    /// <summary>Call after <see cref="State"/> was overwritten: the parameters take the masters' values.</summary>
    public void PublishMasters()
    {
        using var _ = no_grad();
        foreach (Slot slot in _slots)
        {
            if (slot.IsLowPrecision)
            {
                slot.Parameter.copy_(slot.Master);
            }
            else
            {
                // Perhaps written through its pointer.
                slot.Parameter.BumpVersion();
            }
        }
    }

    /// <summary>The gradient of the parameter behind <paramref name="tensor"/> (all its rows), summed where there are sums.</summary>
    public Tensor Gradient(NamedTensor tensor) => _byParameter[tensor.Parameter].Gradient();

    public void Dispose() => _slots.ForEach(slot => slot.Dispose());

    private sealed class Slot : IDisposable
    {
        public Slot(Parameter parameter, bool sums)
        {
            using DisposeScope scope = NewDisposeScope();
            using var _ = no_grad();
            Parameter = parameter;
            IsLowPrecision = parameter.dtype != ScalarType.Float32;
            Master = IsLowPrecision ? parameter.detach().to(ScalarType.Float32).DetachFromDisposeScope() : parameter.detach().DetachFromDisposeScope();
            Sum = IsLowPrecision && sums ? zeros_like(Master).DetachFromDisposeScope() : null;
            ExpAvg = zeros_like(Master).DetachFromDisposeScope();
            ExpAvgSq = zeros_like(Master).DetachFromDisposeScope();
            parameter.grad = null;
        }

        public Parameter Parameter { get; }

        public bool IsLowPrecision { get; }

        /// <summary>float32; shares the parameter's memory when that is float32.</summary>
        public Tensor Master { get; }

        /// <summary>float32; null where the parameter's own gradient serves.</summary>
        public Tensor? Sum { get; }

        public Tensor ExpAvg { get; }

        public Tensor ExpAvgSq { get; }

        /// <summary>Zeros where no backward pass has reached the parameter.</summary>
        public Tensor Gradient()
        {
            if (Sum is null && Parameter.grad is null)
            {
                Parameter.grad = zeros_like(Parameter);
            }

            return Sum ?? Parameter.grad!;
        }

        /// <summary>The next backward pass leaves a gradient of its own instead of adding to one of zeros.</summary>
        public void Forget()
        {
            Sum?.zero_();
            Parameter.grad = null;
        }

        public void Dispose()
        {
            Master.Dispose();
            Sum?.Dispose();
            ExpAvg.Dispose();
            ExpAvgSq.Dispose();
        }
    }
}
