using Trainer.Worker.Checkpoints;

namespace Trainer.Worker.Model;

/// <summary>The tensors that a Hugging Face snapshot of an architecture must hold, known without loading anything.</summary>
public static class SnapshotLayout
{
    private const string Layers = "model.layers.";

    /// <summary>Name and shape of every weight.</summary>
    public static IEnumerable<(string Name, long[] Shape)> Tensors(QwenConfig config)
    {
        long d = config.HiddenSize, f = config.IntermediateSize, h = config.HeadDim;
        long q = config.NumHeads * h, kv = config.NumKvHeads * h;
        yield return ("model.embed_tokens.weight", [config.VocabSize, d]);
        for (int i = 0; i < config.NumLayers; i++)
        {
            string layer = $"model.layers.{i}";
            yield return ($"{layer}.input_layernorm.weight", [d]);
            foreach ((string name, long rows) in new[] { ("q_proj", q), ("k_proj", kv), ("v_proj", kv) })
            {
                yield return ($"{layer}.self_attn.{name}.weight", [rows, d]);
                if (config.QkvBias)
                {
                    yield return ($"{layer}.self_attn.{name}.bias", [rows]);
                }
            }

            if (config.QkNorm)
            {
                yield return ($"{layer}.self_attn.q_norm.weight", [h]);
                yield return ($"{layer}.self_attn.k_norm.weight", [h]);
            }

            yield return ($"{layer}.self_attn.o_proj.weight", [d, q]);
            if (config.OutputBias)
            {
                yield return ($"{layer}.self_attn.o_proj.bias", [d]);
            }

            yield return ($"{layer}.post_attention_layernorm.weight", [d]);
            yield return ($"{layer}.mlp.gate_proj.weight", [f, d]);
            yield return ($"{layer}.mlp.up_proj.weight", [f, d]);
            yield return ($"{layer}.mlp.down_proj.weight", [d, f]);
        }

        yield return ("model.norm.weight", [d]);
        if (!config.TieWordEmbeddings)
        {
            yield return ("lm_head.weight", [config.VocabSize, d]);
        }
    }

    /// <summary>What is wrong with a snapshot's tensors, a line each; empty when they fit config.json.</summary>
    public static IEnumerable<string> Problems(QwenConfig config, SnapshotWeights weights)
    {
        string? beyond = weights.Names.Where(name => name.StartsWith(Layers, StringComparison.Ordinal)).FirstOrDefault(
            name => int.TryParse(name.AsSpan(Layers.Length, name.IndexOf('.', Layers.Length) is > 0 and int dot ? dot - Layers.Length : 0), out int layer)
                && layer >= config.NumLayers);
        if (beyond is not null)
        {
            yield return $"{weights.FileOf(beyond)}: {beyond} lies beyond config.json's num_hidden_layers {config.NumLayers}; "
                + "take config.json and weights from the same snapshot";
        }

        foreach ((string name, long[] shape) in Tensors(config))
        {
            if (!weights.Contains(name))
            {
                yield return $"{weights.Directory}: tensor {name} is missing; config.json asks for it with shape [{string.Join(", ", shape)}]; "
                    + "take config.json and weights from the same snapshot";
                continue;
            }

            TensorEntry entry = weights.Entry(name);
            if (!entry.Shape.SequenceEqual(shape))
            {
                yield return $"{weights.FileOf(name)}: {name} has shape [{string.Join(", ", entry.Shape)}], but config.json asks for "
                    + $"[{string.Join(", ", shape)}]; take config.json and weights from the same snapshot";
            }
            else if (entry.DType is not (TensorDType.F32 or TensorDType.BF16 or TensorDType.F16 or TensorDType.F64))
            {
                yield return $"{weights.FileOf(name)}: {name} has dtype {entry.DType}; float32, bfloat16 or float16 is needed (quantised snapshots can't be fine-tuned)";
            }
        }
    }
}
