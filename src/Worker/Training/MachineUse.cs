using Trainer.Worker.Data;
using Trainer.Worker.Kernels;
using Trainer.Worker.Model;
using TorchSharp;

namespace Trainer.Worker.Training;

/// <summary>
/// Model FLOPs utilisation: the floating-point operations that the training needs, as a share of what the device could do in the
/// time. What kernels compute again (recompute, the backward of attention) and what is not trained does not count.
/// </summary>
internal sealed class MachineUse
{
    private readonly double? _peak;
    private readonly double _perToken;
    private readonly double _perTrainedToken;
    private readonly double _perPair;
    private readonly QwenConfig _config;

    public MachineUse(QwenModel model)
        : this(model.Config, model.Lora?.All.Sum(adapter => (double)(adapter.A.NumberOfElements + adapter.B.NumberOfElements)),
            model.Placement.Device.type == DeviceType.CUDA ? DevicePeak.Find(KernelFacts.Probe().Gpu, model.Placement.Dtype) : null)
    {
    }

    /// <param name="adapters">Trained parameters of adapters on frozen weights; null: the weights are trained.</param>
    /// <param name="peak">Of the device, a second; null: unknown.</param>
    internal MachineUse(QwenConfig config, double? adapters, double? peak)
    {
        _config = config;
        _peak = peak;
        double heads = config.NumHeads * (double)config.HeadDim, kvHeads = config.NumKvHeads * (double)config.HeadDim, hidden = config.HiddenSize;
        double weights = config.NumLayers * ((hidden * heads * 2) + (hidden * kvHeads * 2) + (hidden * config.IntermediateSize * 3));
        // A weight is multiplied and added once forward, once for the gradient of its input, and once for its own where it has one.
        double perWeight = adapters is null ? 6 : 4;
        _perToken = (perWeight * weights) + (6 * adapters ?? 0);
        _perTrainedToken = perWeight * hidden * config.VocabSize;
        // Scores and values forward; the gradients of q, k, v and of the scores backward.
        _perPair = 12 * heads;
    }

    /// <summary>Of one rank's micro-batches of a step, from 0 to 1; null where the device's peak is unknown.</summary>
    public double? Of(IEnumerable<PackedBatch> batches, double seconds) => _peak is { } peak ? batches.Sum(Flops) / seconds / peak : null;

    /// <summary>What the batch needs, forward and backward.</summary>
    internal double Flops(PackedBatch batch)
    {
        double[] lengths = [.. Enumerable.Range(0, batch.CuSeqlens.Length - 1).Select(document => (double)(batch.CuSeqlens[document + 1] - batch.CuSeqlens[document]))];
        double pairs = _config.LayerSlides.Sum(slides => lengths.Sum(length => Pairs(length, slides ? _config.SlidingWindow : null)));
        return (_perToken * batch.Tokens.Length) + (_perTrainedToken * batch.TrainedTokens) + (_perPair * pairs);
    }

    /// <summary>Of queries and keys that see each other in a document.</summary>
    private static double Pairs(double length, int? window)
    {
        double seen = Math.Min(length, window ?? length);
        return (seen * (seen + 1) / 2) + ((length - seen) * seen);
    }
}
