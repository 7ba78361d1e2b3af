using Trainer.Contracts;
using Trainer.Worker.Distributed;
using Trainer.Worker.Kernels;
using Trainer.Worker.Model;
using TorchSharp;
using TorchSharp.Extras;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Trainer.Worker.Training;

/// <summary>
/// AdamW over the trained parameters with float32 moments; bfloat16 parameters keep a float32 master copy and sum their
/// gradients in float32 over micro-batches.
/// </summary>
public sealed class AdamW : IDisposable
{
    private readonly OptimizerConfig _config;
    private readonly List<Slot> _slots;
    private readonly Dictionary<Parameter, Slot> _byParameter;

    /// <summary>GPUs take all tensors in one launch.</summary>
    private readonly GpuSlots? _together;

    public AdamW(IEnumerable<NamedTensor> trained, OptimizerConfig config)
    {
        _config = config;
        Trained = [.. trained];
        _slots = [.. Trained.Select(tensor => tensor.Parameter).Distinct().Select(parameter => new Slot(parameter))];
        _byParameter = _slots.ToDictionary(slot => slot.Parameter);
        _together = _slots.Count > 0 && _slots[0].Master.device_type == DeviceType.CUDA ? new GpuSlots(_slots) : null;
    }

    public IReadOnlyList<NamedTensor> Trained { get; }

    /// <summary>Call after each backward: moves bfloat16 gradients into their float32 sums.</summary>
    public void AccumulateGradients()
    {
        if (_together is not null)
        {
            _together.AccumulateGradients();
            return;
        }

        foreach (Slot slot in _slots.Where(slot => slot.IsLowPrecision))
        {
            AdamWKernel.Accumulate(slot.Gradient, slot.Parameter.grad!);
            slot.Parameter.grad!.zero_();
        }
    }

    /// <summary>Call after the last backward of a step: every rank gets the gradients of all ranks together.</summary>
    public void SumGradients(ICommunicator ranks)
    {
        foreach (Slot slot in _slots)
        {
            ranks.AllReduceSum(slot.Gradient);
        }
    }

    /// <summary>L2 norm of all gradients together.</summary>
    public double GradientNorm() => _together?.GradientNorm() ?? Math.Sqrt(_slots.Sum(slot => AdamWKernel.SumOfSquares(slot.Gradient)));

    /// <summary>The first trained tensor whose gradient is not finite, by its Hugging Face name.</summary>
    public string? FirstNonFinite() =>
        Trained.FirstOrDefault(tensor => !double.IsFinite(AdamWKernel.SumOfSquares(tensor.Slice(Gradient(tensor)))))?.Name;

    /// <summary>One update with every gradient multiplied by <paramref name="gradientScale"/>; the gradients are zero after it.</summary>
    /// <param name="step">1-based, for the bias correction.</param>
    public void Step(int step, double learningRate, double gradientScale)
    {
        if (_together is not null)
        {
            _together.Step(_config, step, learningRate, gradientScale);
            return;
        }

        foreach (Slot slot in _slots)
        {
            AdamWKernel.Step(
                slot.Master, slot.ExpAvg, slot.ExpAvgSq, slot.Gradient, learningRate, _config.Beta1, _config.Beta2,
                _config.Epsilon, _config.WeightDecay, step, gradientScale, slot.IsLowPrecision ? slot.Parameter : null);
            slot.Gradient.zero_();
        }
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
        foreach (Slot slot in _slots.Where(slot => slot.IsLowPrecision))
        {
            slot.Parameter.copy_(slot.Master);
        }
    }

    /// <summary>The summed gradient of the parameter behind <paramref name="tensor"/> (all its rows).</summary>
    public Tensor Gradient(NamedTensor tensor) => _byParameter[tensor.Parameter].Gradient;

    public void Dispose() => _slots.ForEach(slot => slot.Dispose());

    /// <summary>The same arithmetic by libtorch's operators on lists of tensors.</summary>
    private sealed class GpuSlots(List<Slot> slots)
    {
        private readonly Tensor[] _masters = [.. slots.Select(slot => slot.Master)];
        private readonly Tensor[] _gradients = [.. slots.Select(slot => slot.Gradient)];
        private readonly Tensor[] _expAvgs = [.. slots.Select(slot => slot.ExpAvg)];
        private readonly Tensor[] _expAvgSqs = [.. slots.Select(slot => slot.ExpAvgSq)];
        private readonly Slot[] _low = [.. slots.Where(slot => slot.IsLowPrecision)];

        public void AccumulateGradients()
        {
            if (_low.Length == 0)
            {
                return;
            }

            using DisposeScope scope = NewDisposeScope();
            using var _ = no_grad();
            Tensor[] added = [.. _low.Select(slot => slot.Parameter.grad!)];
            Fused.Add([.. _low.Select(slot => slot.Gradient)], added);
            Fused.Zero(added);
        }

        public double GradientNorm()
        {
            using Tensor norm = Fused.Norm(_gradients);
            return norm.ToDouble();
        }

        public void Step(OptimizerConfig config, int step, double learningRate, double gradientScale)
        {
            using DisposeScope scope = NewDisposeScope();
            using var _ = no_grad();
            if (gradientScale != 1)
            {
                Fused.Scale(_gradients, gradientScale);
            }

            var steps = new Tensor[_masters.Length];
            Array.Fill(steps, full([], (float)step, ScalarType.Float32, _masters[0].device));
            Fused.AdamW(_masters, _gradients, _expAvgs, _expAvgSqs, steps, learningRate, config.Beta1, config.Beta2, config.WeightDecay, config.Epsilon);
            if (_low.Length > 0)
            {
                Fused.Copy([.. _low.Select(slot => (Tensor)slot.Parameter)], [.. _low.Select(slot => slot.Master)]);
            }

            Fused.Zero(_gradients);
        }
    }

    private sealed class Slot : IDisposable
    {
        public Slot(Parameter parameter)
        {
            using DisposeScope scope = NewDisposeScope();
            using var _ = no_grad();
            Parameter = parameter;
            IsLowPrecision = parameter.dtype != ScalarType.Float32;

            // Gradients exist from the start, so that the first step after a resume adds to zeros like every other step.
            parameter.grad = zeros_like(parameter);
            Master = IsLowPrecision ? parameter.detach().to(ScalarType.Float32).DetachFromDisposeScope() : parameter.detach().DetachFromDisposeScope();
            Gradient = (IsLowPrecision ? zeros_like(Master) : parameter.grad!).DetachFromDisposeScope();
            ExpAvg = zeros_like(Master).DetachFromDisposeScope();
            ExpAvgSq = zeros_like(Master).DetachFromDisposeScope();
        }

        public Parameter Parameter { get; }

        public bool IsLowPrecision { get; }

        /// <summary>float32; shares the parameter's memory when that is float32.</summary>
        public Tensor Master { get; }

        public Tensor Gradient { get; }

        public Tensor ExpAvg { get; }

        public Tensor ExpAvgSq { get; }

        public void Dispose()
        {
            Master.Dispose();
            Gradient.Dispose();
            ExpAvg.Dispose();
            ExpAvgSq.Dispose();
        }
    }
}
