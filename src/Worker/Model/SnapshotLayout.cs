using Trainer.Worker.Checkpoints;

namespace Trainer.Worker.Model;

/// <summary>The tensors that a Hugging Face snapshot of an architecture must hold, known without loading anything.</summary>
public static class SnapshotLayout
{
    /// <summary>Name and shape of every weight.</summary>
    public static IEnumerable<(string Name, long[] Shape)> Tensors(QwenConfig config)
    {
        SnapshotNames names = config.Names;
        long d = config.HiddenSize, f = config.IntermediateSize, h = config.HeadDim;
        yield return (names.Embedding, [config.VocabSize, d]);
        for (int i = 0; i < config.NumLayers; i++)
        {
            string layer = $"{names.Layers}{i}", attention = $"{layer}.{names.Attention}", mlp = $"{layer}.{SnapshotNames.Mlp}";
            yield return ($"{layer}.{names.InputNorm}.weight", [d]);
            foreach ((string name, long rows) in names.QkvParts(config))
            {
                yield return ($"{attention}.{name}.weight", [rows, d]);
                if (config.QkvBias)
                {
                    yield return ($"{attention}.{name}.bias", [rows]);
                }
            }

            if (config.QkNorm)
            {
                yield return ($"{attention}.q_norm.weight", [h]);
                yield return ($"{attention}.k_norm.weight", [h]);
            }

            yield return ($"{attention}.{names.Output}.weight", [d, config.NumHeads * h]);
            if (config.OutputBias)
            {
                yield return ($"{attention}.{names.Output}.bias", [d]);
            }

            yield return ($"{layer}.{names.PostAttentionNorm}.weight", [d]);
            yield return ($"{mlp}.{names.Gate}.weight", [f, d]);
            yield return ($"{mlp}.{names.Up}.weight", [f, d]);
            yield return ($"{mlp}.{names.Down}.weight", [d, f]);
        }

        yield return (names.FinalNorm, [d]);
        if (!config.TieWordEmbeddings)
        {
            yield return (SnapshotNames.Head, [config.VocabSize, d]);
        }
    }

    /// <summary>What is wrong with a snapshot's tensors, a line each; empty when they fit config.json.</summary>
    public static IEnumerable<string> Problems(QwenConfig config, SnapshotWeights weights)
    {
        string layers = config.Names.Layers;
        string? beyond = weights.Names.Where(name => name.StartsWith(layers, StringComparison.Ordinal)).FirstOrDefault(
            name => int.TryParse(name.AsSpan(layers.Length, name.IndexOf('.', layers.Length) is > 0 and int dot ? dot - layers.Length : 0), out int layer)
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
