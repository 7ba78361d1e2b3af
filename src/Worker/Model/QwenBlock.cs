using Trainer.Contracts;
using Trainer.Worker.Attention;
using Trainer.Worker.Kernels;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>One decoder layer. Shapes: T tokens, D hidden, N query heads, M key/value heads, H head size, F intermediate.</summary>
public sealed class QwenBlock
{
    private readonly QwenConfig _config;
    private readonly int _window;

    public QwenBlock(QwenConfig config, int layer, ModelPlacement placement)
    {
        _config = config;
        _window = config.LayerSlides[layer] ? config.SlidingWindow!.Value - 1 : -1;
        SnapshotNames names = config.Names;
        Name = $"{names.Layers}{layer}";
        string attention = $"{Name}.{names.Attention}", mlp = $"{Name}.{SnapshotNames.Mlp}";

        InputNorm = NewNorm(config.HiddenSize, placement);
        Qkv = new LinearLayer(attention, config.HiddenSize, names.QkvParts(config), config.QkvBias, placement);
        QNorm = config.QkNorm ? NewNorm(config.HeadDim, placement) : null;
        KNorm = config.QkNorm ? NewNorm(config.HeadDim, placement) : null;
        Output = new LinearLayer(attention, config.NumHeads * config.HeadDim, [(names.Output, config.HiddenSize)], config.OutputBias, placement);
        PostAttentionNorm = NewNorm(config.HiddenSize, placement);
        GateUp = new LinearLayer(mlp, config.HiddenSize, [(names.Gate, config.IntermediateSize), (names.Up, config.IntermediateSize)], false, placement);
        Down = new LinearLayer(mlp, config.IntermediateSize, [(names.Down, config.HiddenSize)], false, placement);
    }

    public string Name { get; }

    public Parameter InputNorm { get; }

    public LinearLayer Qkv { get; }

    public Parameter? QNorm { get; }

    public Parameter? KNorm { get; }

    public LinearLayer Output { get; }

    public Parameter PostAttentionNorm { get; }

    public LinearLayer GateUp { get; }

    public LinearLayer Down { get; }

    public IEnumerable<LinearLayer> LinearLayers => [Qkv, Output, GateUp, Down];

    /// <summary>x_TD to x_TD.</summary>
    /// <param name="cache">Keys and values of the tokens before these; only without gradients.</param>
    public Tensor Forward(Tensor x_TD, ForwardContext context, KeyValueCache? cache = null)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor h_TD = Ops.RmsNorm(x_TD, InputNorm, _config.RmsNormEps);
        Tensor qkv_TE = Qkv.Forward(h_TD, context.DropoutSeed);
        Tensor o_TE = cache is null && context.Attention.Kind == AttentionKind.Flash
            ? Ops.QkvAttention(qkv_TE, QNorm, KNorm, context.Cos, context.Sin, context.CuSeqlens, new QkvAttentionShape(
                _config.NumHeads, _config.NumKvHeads, _config.RmsNormEps, Scale, _window, context.Attention.IsDeterministic))
            : AttentionOfParts(qkv_TE, context, cache);
        Tensor a_TD = Output.Forward(o_TE, context.DropoutSeed);
        (Tensor normed, Tensor sum) = Ops.AddRmsNorm(a_TD, x_TD, PostAttentionNorm, _config.RmsNormEps);
        Tensor gateUp_T2F = GateUp.Forward(normed, context.DropoutSeed);
        Tensor y_TD = sum + Down.Forward(Ops.SwiGlu(gateUp_T2F), context.DropoutSeed, context.OnlyGradients);
        return y_TD.MoveToOuterDisposeScope();
    }

    /// <summary>Every weight under its Hugging Face name.</summary>
    public IEnumerable<NamedTensor> NamedTensors()
    {
        yield return Whole($"{Name}.{_config.Names.InputNorm}.weight", InputNorm);
        foreach (NamedTensor tensor in Qkv.NamedTensors())
        {
            yield return tensor;
        }

        if (_config.QkNorm)
        {
            yield return Whole($"{Name}.{_config.Names.Attention}.q_norm.weight", QNorm!);
            yield return Whole($"{Name}.{_config.Names.Attention}.k_norm.weight", KNorm!);
        }

        foreach (NamedTensor tensor in Output.NamedTensors())
        {
            yield return tensor;
        }

        yield return Whole($"{Name}.{_config.Names.PostAttentionNorm}.weight", PostAttentionNorm);
        foreach (NamedTensor tensor in GateUp.NamedTensors().Concat(Down.NamedTensors()))
        {
            yield return tensor;
        }
    }

    private double Scale => 1 / Math.Sqrt(_config.HeadDim);

    /// <summary>By other attention than ours, or with keys and values of tokens before these.</summary>
    private Tensor AttentionOfParts(Tensor qkv_TE, ForwardContext context, KeyValueCache? cache)
    {
        long tokens = qkv_TE.shape[0], heads = _config.NumHeads, kvHeads = _config.NumKvHeads, size = _config.HeadDim;
        Tensor[] parts = qkv_TE.split([heads * size, kvHeads * size, kvHeads * size], 1);
        Tensor q_TNH = parts[0].view(tokens, heads, size), k_TMH = parts[1].view(tokens, kvHeads, size), v_TMH = parts[2].view(tokens, kvHeads, size);
        if (_config.QkNorm)
        {
            q_TNH = Ops.RmsNorm(q_TNH, QNorm!, _config.RmsNormEps);
            k_TMH = Ops.RmsNorm(k_TMH, KNorm!, _config.RmsNormEps);
        }

        q_TNH = Ops.Rotary(q_TNH, context.Cos, context.Sin);
        if (context.QueryScale is { } scale_T11)
        {
            q_TNH = q_TNH * scale_T11;
        }

        k_TMH = Ops.Rotary(k_TMH, context.Cos, context.Sin);
        Tensor o_TNH;
        if (cache is null)
        {
            o_TNH = context.Attention.Forward(q_TNH, k_TMH, v_TMH, context.CuSeqlens, Scale, _window);
        }
        else
        {
            (Tensor keys, Tensor values) = cache.Append(k_TMH, v_TMH);
            o_TNH = MathAttention.Forward(q_TNH, keys, values, Scale, _window);
        }

        return o_TNH.reshape(tokens, heads * size);
    }

    private static Parameter NewNorm(int size, ModelPlacement placement) =>
        new(ones([size], dtype: placement.Dtype, device: placement.Device));

    private static NamedTensor Whole(string name, Parameter parameter) => new(name, parameter, 0, parameter.shape[0]);
}

/// <summary>What every block of one forward pass shares.</summary>
/// <param name="Cos">float32 [T, H/2], already gathered by position.</param>
/// <param name="Sin">float32 [T, H/2].</param>
/// <param name="CuSeqlens">int32 [S + 1] on the CPU: where each document starts; the last entry is T.</param>
/// <param name="DropoutSeed">Zero turns dropout off.</param>
/// <param name="OnlyGradients">Only backward is wanted, which does not need the values of the block's result: they are left undefined.</param>
/// <param name="QueryScale">[T, 1, 1] of the model's dtype: a factor of each token's queries, only beside a cache; null: 1.</param>
public sealed record ForwardContext(
    Tensor Cos, Tensor Sin, Tensor CuSeqlens, AttentionBackend Attention, ulong DropoutSeed, bool OnlyGradients = false, Tensor? QueryScale = null);
