using Trainer.Contracts;
using Trainer.Worker.Attention;
using Trainer.Worker.Kernels;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>
/// A dense Qwen decoder, of the first Qwen to Qwen3, over packed documents. Inside, q/k/v and gate/up are one GEMM each;
/// outside, every weight has its Hugging Face name (<see cref="NamedTensors"/>).
/// </summary>
public sealed class QwenModel : IDisposable
{
    private readonly RotaryTable _rotary;
    private readonly bool _recompute;

    public QwenModel(QwenConfig config, ModelPlacement placement, AttentionBackend attention, bool recompute = false)
    {
        using DisposeScope scope = NewDisposeScope();
        Config = config;
        Placement = placement;
        Attention = attention;
        _recompute = recompute;
        _rotary = new RotaryTable(config.HeadDim, config.RopeTheta, placement.Device);
        Embedding = new Parameter(empty([config.VocabSize, config.HiddenSize], dtype: placement.Dtype, device: placement.Device));
        Blocks = [.. Enumerable.Range(0, config.NumLayers).Select(layer => new QwenBlock(config, layer, placement))];
        FinalNorm = new Parameter(ones([config.HiddenSize], dtype: placement.Dtype, device: placement.Device));
        Head = config.TieWordEmbeddings
            ? Embedding
            : new Parameter(empty([config.VocabSize, config.HiddenSize], dtype: placement.Dtype, device: placement.Device));
        foreach (Parameter parameter in NamedTensors().Select(tensor => tensor.Parameter).Distinct())
        {
            parameter.DetachFromDisposeScope();
        }
    }

    public QwenConfig Config { get; }

    public ModelPlacement Placement { get; }

    public AttentionBackend Attention { get; }

    /// <summary>[V, D].</summary>
    public Parameter Embedding { get; }

    public IReadOnlyList<QwenBlock> Blocks { get; }

    public Parameter FinalNorm { get; }

    /// <summary>[V, D]; the embedding itself when tied.</summary>
    public Parameter Head { get; }

    public LoraAdapters? Lora { get; private set; }

    /// <summary>Freezes the weights and adds adapters, which are then the only trained parameters.</summary>
    public LoraAdapters AttachLora(LoraConfig lora, ulong seed)
    {
        foreach (NamedTensor tensor in NamedTensors())
        {
            tensor.Parameter.requires_grad = false;
        }

        return Lora = new LoraAdapters(this, lora, seed);
    }

    /// <summary>Sum of the cross-entropies of the trained tokens times <paramref name="scale"/>: a float32 scalar.</summary>
    /// <param name="dropoutSeed">Zero turns dropout off.</param>
    public Tensor Loss(ModelInput input, double scale, ulong dropoutSeed = 0)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor hidden_TD = Hidden(input, dropoutSeed);
        return Ops.LinearCrossEntropy(hidden_TD, Head, input.Labels!, scale).MoveToOuterDisposeScope();
    }

    /// <summary>[T, V] in float32.</summary>
    public Tensor Logits(ModelInput input)
    {
        using DisposeScope scope = NewDisposeScope();
        return Ops.Linear(Hidden(input, 0), Head).to(ScalarType.Float32).MoveToOuterDisposeScope();
    }

    /// <summary>The logits of generation, float32, after each of the last tokens, which continue what the cache holds.</summary>
    /// <param name="count">How many of the last tokens.</param>
    /// <returns>[count, V].</returns>
    public Tensor Continue(ReadOnlySpan<int> tokens, GenerationCache cache, int count = 1)
    {
        using DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        using var input = ModelInput.Sequence(tokens, cache.Length, Placement.Device);
        Tensor? scale_T11 = Config.LongContext?.QueryScale(cache.Length, tokens.Length) is { } factors
            ? tensor(factors, [factors.Length, 1, 1]).to(Placement.Dtype).to(Placement.Device) : null;
        ForwardContext context = NewContext(input, 0, cache.Rotary) with { QueryScale = scale_T11 };
        Tensor x_TD = nn.functional.embedding(input.Tokens, Embedding);
        for (int layer = 0; layer < Blocks.Count; layer++)
        {
            x_TD = Blocks[layer].Forward(x_TD, context, cache.Layers[layer]);
        }

        cache.Length += tokens.Length;
        Tensor last = Ops.RmsNorm(x_TD.narrow(0, tokens.Length - count, count), FinalNorm, Config.RmsNormEps);
        return Ops.Linear(last, Head).to(ScalarType.Float32).MoveToOuterDisposeScope();
    }

    /// <summary>Every weight under its Hugging Face name, in a fixed order; a tied head has none of its own.</summary>
    public IEnumerable<NamedTensor> NamedTensors()
    {
        yield return new NamedTensor(Config.Names.Embedding, Embedding, 0, Config.VocabSize);
        foreach (NamedTensor tensor in Blocks.SelectMany(block => block.NamedTensors()))
        {
            yield return tensor;
        }

        yield return new NamedTensor(Config.Names.FinalNorm, FinalNorm, 0, Config.HiddenSize);
        if (!Config.TieWordEmbeddings)
        {
            yield return new NamedTensor(SnapshotNames.Head, Head, 0, Config.VocabSize);
        }
    }

    /// <summary>What the optimizer updates: the adapters, or without LoRA every weight.</summary>
    public IEnumerable<NamedTensor> TrainedTensors() => Lora?.NamedTensors() ?? NamedTensors();

    public void Dispose()
    {
        foreach (Parameter parameter in NamedTensors().Concat(Lora?.NamedTensors() ?? []).Select(tensor => tensor.Parameter).Distinct())
        {
            parameter.Dispose();
        }

        foreach (LinearLayer layer in Blocks.SelectMany(block => block.LinearLayers))
        {
            layer.Dispose();
        }

        _rotary.Dispose();
    }

    private Tensor Hidden(ModelInput input, ulong dropoutSeed)
    {
        if (Lora is not null)
        {
            LowRankFactors.Refresh(Blocks.SelectMany(block => block.LinearLayers).Select(layer => layer.Factors).OfType<LowRankFactors>());
        }

        ForwardContext context = NewContext(input, dropoutSeed, _rotary);
        Tensor x_TD = nn.functional.embedding(input.Tokens, Embedding);
        bool recompute = _recompute && is_grad_enabled();
        if (recompute && !x_TD.requires_grad)
        {
            x_TD = x_TD.detach().requires_grad_(true);
        }

        foreach (QwenBlock block in Blocks)
        {
            x_TD = recompute ? Recompute.Run(block, x_TD, context) : block.Forward(x_TD, context);
        }

        return Ops.RmsNorm(x_TD, FinalNorm, Config.RmsNormEps);
    }

    private ForwardContext NewContext(ModelInput input, ulong dropoutSeed, RotaryTable rotary)
    {
        (Tensor cos, Tensor sin) = rotary.Gather(input.Positions, input.LastPosition);
        return new ForwardContext(cos, sin, input.CuSeqlens, Attention, dropoutSeed);
    }
}
