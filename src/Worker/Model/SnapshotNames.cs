namespace Trainer.Worker.Model;

/// <summary>What the snapshots of a family call their weights, and which of them are one matrix there.</summary>
public sealed record SnapshotNames
{
    /// <summary>Parent of <see cref="Gate"/>, <see cref="Up"/> and <see cref="Down"/>.</summary>
    public const string Mlp = "mlp";

    public const string Head = "lm_head.weight";

    /// <summary>Qwen1.5, Qwen2, Qwen2.5 and Qwen3.</summary>
    public static readonly SnapshotNames Qwen2 = new()
    {
        Embedding = "model.embed_tokens.weight",
        Layers = "model.layers.",
        InputNorm = "input_layernorm",
        Attention = "self_attn",
        Qkv = ["q_proj", "k_proj", "v_proj"],
        Output = "o_proj",
        PostAttentionNorm = "post_attention_layernorm",
        Gate = "gate_proj",
        Up = "up_proj",
        Down = "down_proj",
        FinalNorm = "model.norm.weight",
    };

    /// <summary>The first Qwen, whose code came with its weights.</summary>
    public static readonly SnapshotNames Qwen = new()
    {
        Embedding = "transformer.wte.weight",
        Layers = "transformer.h.",
        InputNorm = "ln_1",
        Attention = "attn",
        Qkv = ["c_attn"],
        Output = "c_proj",
        PostAttentionNorm = "ln_2",
        Gate = "w2",
        Up = "w1",
        Down = "c_proj",
        FinalNorm = "transformer.ln_f.weight",
    };

    public required string Embedding { get; init; }

    /// <summary>Before a layer's number.</summary>
    public required string Layers { get; init; }

    public required string InputNorm { get; init; }

    /// <summary>Parent of <see cref="Qkv"/> and <see cref="Output"/>.</summary>
    public required string Attention { get; init; }

    /// <summary>Queries, keys and values: three matrices, or one of all their rows.</summary>
    public required IReadOnlyList<string> Qkv { get; init; }

    public required string Output { get; init; }

    public required string PostAttentionNorm { get; init; }

    /// <summary>What goes through silu; its product with <see cref="Up"/> goes through <see cref="Down"/>.</summary>
    public required string Gate { get; init; }

    public required string Up { get; init; }

    public required string Down { get; init; }

    public required string FinalNorm { get; init; }

    /// <summary>Every linear layer of a layer by its path within it, such as "self_attn.q_proj".</summary>
    public IEnumerable<string> LinearPaths => [.. Qkv.Append(Output).Select(name => $"{Attention}.{name}"), $"{Mlp}.{Gate}", $"{Mlp}.{Up}", $"{Mlp}.{Down}"];

    /// <summary>The last part of each of <see cref="LinearPaths"/>.</summary>
    public IReadOnlyList<string> LinearNames => [.. LinearPaths.Select(path => path[(path.IndexOf('.', StringComparison.Ordinal) + 1)..]).Distinct()];

    /// <summary>The matrices of queries, keys and values in their order, with their rows.</summary>
    public IReadOnlyList<(string Name, int Rows)> QkvParts(QwenConfig config)
    {
        int q = config.NumHeads * config.HeadDim, kv = config.NumKvHeads * config.HeadDim;
        return Qkv.Count == 1 ? [(Qkv[0], q + (2 * kv))] : [(Qkv[0], q), (Qkv[1], kv), (Qkv[2], kv)];
    }
}
