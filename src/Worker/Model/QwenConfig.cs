using System.Text.Json;
using System.Text.Json.Nodes;
using Trainer.Worker.Export;

namespace Trainer.Worker.Model;

/// <summary>The architecture of a dense Qwen model, of the first Qwen to Qwen3, read from a Hugging Face config.json.</summary>
public sealed record QwenConfig
{
    public required string ModelType { get; init; }
    public required int HiddenSize { get; init; }
    public required int IntermediateSize { get; init; }
    public required int NumLayers { get; init; }
    public required int NumHeads { get; init; }
    public required int NumKvHeads { get; init; }
    public required int HeadDim { get; init; }
    public required int VocabSize { get; init; }
    public required double RmsNormEps { get; init; }
    public required double RopeTheta { get; init; }
    public required bool TieWordEmbeddings { get; init; }
    public double InitializerRange { get; init; } = 0.02;

    /// <summary>Biases of q, k and v (always in Qwen and Qwen2; attention_bias in Qwen3).</summary>
    public required bool QkvBias { get; init; }

    /// <summary>Bias of o_proj (attention_bias in Qwen3).</summary>
    public required bool OutputBias { get; init; }

    /// <summary>RMSNorm over each head of q and k (Qwen3).</summary>
    public required bool QkNorm { get; init; }

    /// <summary>Keys that a query sees, itself included, in layers with a sliding window; null: all before it.</summary>
    public int? SlidingWindow { get; init; }

    /// <summary>For each layer, whether <see cref="SlidingWindow"/> applies.</summary>
    public required IReadOnlyList<bool> LayerSlides { get; init; }

    /// <summary>Null: generation beyond the trained length is as within.</summary>
    public LongContext? LongContext { get; init; }

    /// <summary>The file as it was read: exports write it back.</summary>
    public required JsonObject Source { get; init; }

    /// <summary>The folder of the file.</summary>
    public required string Directory { get; init; }

    /// <summary>The first Qwen, whose snapshots bring their code.</summary>
    public bool IsFirstQwen => ModelType == "qwen";

    public SnapshotNames Names => IsFirstQwen ? SnapshotNames.Qwen : SnapshotNames.Qwen2;

    /// <exception cref="JobInputException">The file is missing, malformed, or of an architecture that is not supported.</exception>
    public static QwenConfig Load(string path)
    {
        if (!File.Exists(path))
        {
            throw new JobInputException(File.Exists(Path.Combine(Path.GetDirectoryName(path) ?? "", PeftAdapter.ConfigFile))
                ? $"{path}: no such file; the folder holds a LoRA adapter, which is no model by itself: merge it into its base model first, with PEFT's merge_and_unload"
                : $"{path}: no such file; a Hugging Face config.json is expected there");
        }

        try
        {
            if (JsonNode.Parse(File.ReadAllText(path), documentOptions: new JsonDocumentOptions { AllowDuplicateProperties = false }) is not JsonObject json)
            {
                throw new JobInputException($"{path}: a JSON object is expected");
            }

            return new Reader(path, json).Read();
        }
        catch (JsonException e)
        {
            throw JobInputException.MalformedJson(path, e);
        }
    }

    private sealed class Reader(string path, JsonObject json)
    {
        // Far above any model, and small enough that products of sizes don't overflow.
        private const int MostOfAnything = 1 << 24, MostLayers = 1 << 12;

        public QwenConfig Read()
        {
            string type = Value<string>("model_type");
            string architecture = type switch
            {
                "qwen" => "QWenLMHeadModel",
                "qwen2" => "Qwen2ForCausalLM",
                "qwen3" => "Qwen3ForCausalLM",
                _ => throw new JobInputException(
                    $"{path}: model_type '{type}' is not supported; supported are qwen2 (Qwen1.5, Qwen2, Qwen2.5), qwen3 (dense) and qwen (the first)"),
            };
            if (json["architectures"] is JsonArray { Count: > 0 } architectures && architectures[0]?.ToString() != architecture)
            {
                throw Wrong("architectures", $"'{architectures[0]}' is not supported; a {type} model is trained as {architecture}");
            }

            if (json["quantization_config"] is not null)
            {
                throw Wrong("quantization_config", "quantised snapshots can't be fine-tuned; take the bf16 snapshot of this model");
            }

            return type == "qwen" ? FirstQwen() : Qwen2OrLater(type);
        }

        private QwenConfig FirstQwen()
        {
            int hidden = Positive("hidden_size"), heads = Positive("num_attention_heads"), headDim = HeadDim("kv_channels"), intermediate = Positive("intermediate_size");
            if (heads * headDim != hidden)
            {
                throw Wrong("kv_channels", $"{headDim} times num_attention_heads {heads} is not hidden_size {hidden}");
            }

            if (intermediate % 2 != 0)
            {
                throw Wrong("intermediate_size", $"{intermediate} is odd; it counts the rows of w1 and w2 together");
            }

            Require("no_bias", true);
            Require("scale_attn_weights", true);
            Require("rotary_pct", 1.0);
            Require("attn_dropout_prob", 0.0);
            Require("emb_dropout_prob", 0.0);
            int layers = Layers(), trained = json["seq_length"] is null ? 2048 : Positive("seq_length");
            return new QwenConfig
            {
                ModelType = "qwen",
                HiddenSize = hidden,
                IntermediateSize = intermediate / 2,
                NumLayers = layers,
                NumHeads = heads,
                NumKvHeads = heads,
                HeadDim = headDim,
                VocabSize = Positive("vocab_size"),
                RmsNormEps = PositiveNumber("layer_norm_epsilon", Optional("layer_norm_epsilon", 1e-6)),
                RopeTheta = PositiveNumber("rotary_emb_base", Optional("rotary_emb_base", 10000.0)),
                TieWordEmbeddings = Optional("tie_word_embeddings", false),
                InitializerRange = PositiveNumber("initializer_range", Optional("initializer_range", 0.02)),
                QkvBias = true,
                OutputBias = false,
                QkNorm = false,
                LayerSlides = [.. Enumerable.Repeat(false, layers)],
                LongContext = new LongContext(trained, Optional("use_dynamic_ntk", true), Optional("use_logn_attn", true)),
                Source = json,
                Directory = Folder,
            };
        }

        private QwenConfig Qwen2OrLater(string type)
        {
            string activation = Optional("hidden_act", "silu");
            if (activation != "silu")
            {
                throw Wrong("hidden_act", $"'{activation}' is not supported, only silu");
            }

            bool qwen3 = type == "qwen3";
            int hidden = Positive("hidden_size");
            int heads = Positive("num_attention_heads");
            int kvHeads = json["num_key_value_heads"] is null ? heads : Positive("num_key_value_heads");
            if (heads % kvHeads != 0)
            {
                throw Wrong("num_key_value_heads", $"{kvHeads} does not divide num_attention_heads {heads}");
            }

            if (json["head_dim"] is null && hidden % heads != 0)
            {
                throw Wrong("hidden_size", $"{hidden} is not a multiple of num_attention_heads {heads}");
            }

            int headDim = HeadDim("head_dim", qwen3 ? 128 : hidden / heads);
            bool attentionBias = Optional("attention_bias", false);
            int layers = Layers();
            bool slides = Optional("use_sliding_window", false) && json["sliding_window"] is not null;
            return new QwenConfig
            {
                ModelType = type,
                HiddenSize = hidden,
                IntermediateSize = Positive("intermediate_size"),
                NumLayers = layers,
                NumHeads = heads,
                NumKvHeads = kvHeads,
                HeadDim = headDim,
                VocabSize = Positive("vocab_size"),
                RmsNormEps = PositiveNumber("rms_norm_eps", Optional("rms_norm_eps", 1e-6)),
                RopeTheta = PositiveNumber("rope_theta", RopeTheta()),
                TieWordEmbeddings = Optional("tie_word_embeddings", false),
                InitializerRange = PositiveNumber("initializer_range", Optional("initializer_range", 0.02)),
                QkvBias = !qwen3 || attentionBias,
                OutputBias = qwen3 && attentionBias,
                QkNorm = qwen3,
                SlidingWindow = slides ? Positive("sliding_window") : null,
                LayerSlides = LayerSlides(layers, slides),
                Source = json,
                Directory = Folder,
            };
        }

        private string Folder => Path.GetDirectoryName(Path.GetFullPath(path))!;

        private int HeadDim(string key, int? otherwise = null)
        {
            int headDim = json[key] is null && otherwise is { } derived ? derived : Positive(key);
            return headDim % 2 == 0 && headDim <= 256 ? headDim : throw Wrong(key, $"{headDim} is not supported; it must be even and at most 256");
        }

        private int Layers()
        {
            int layers = Positive("num_hidden_layers");
            return layers <= MostLayers ? layers : throw Wrong("num_hidden_layers", $"{layers} must be between 1 and {MostLayers}");
        }

        private void Require<T>(string key, T only) where T : notnull
        {
            if (Optional(key, only) is var value && !value.Equals(only))
            {
                throw Wrong(key, FormattableString.Invariant($"{value} is not supported, only {only}").ToLowerInvariant());
            }
        }

        private double RopeTheta()
        {
            JsonNode? scaling = json["rope_scaling"] ?? json["rope_parameters"];
            if (scaling is JsonObject parameters)
            {
                string kind = (parameters["rope_type"] ?? parameters["type"])?.ToString() ?? "default";
                if (kind != "default")
                {
                    throw Wrong("rope_scaling", $"rope type '{kind}' is not supported for training, only default; "
                        + "remove it unless you train beyond the model's original context");
                }
            }

            if (json["rope_parameters"] is JsonObject rope && rope["rope_theta"] is not null)
            {
                return Convert<double>("rope_parameters.rope_theta", rope["rope_theta"]!);
            }

            return Optional("rope_theta", 10000.0);
        }

        private List<bool> LayerSlides(int layers, bool slides)
        {
            if (!slides)
            {
                return [.. Enumerable.Repeat(false, layers)];
            }

            if (json["layer_types"] is JsonArray types)
            {
                if (types.Count != layers)
                {
                    throw Wrong("layer_types", $"{types.Count} entries for num_hidden_layers {layers}");
                }

                return [.. types.Select(type => type?.ToString() == "sliding_attention")];
            }

            int from = Optional("max_window_layers", 28);
            return [.. Enumerable.Range(0, layers).Select(layer => layer >= from)];
        }

        private int Positive(string key)
        {
            int value = Value<int>(key);
            return value is > 0 and <= MostOfAnything ? value : throw Wrong(key, $"{value} must be between 1 and {MostOfAnything}");
        }

        private double PositiveNumber(string key, double value) =>
            double.IsFinite(value) && value > 0 ? value : throw Wrong(key, FormattableString.Invariant($"{value} must be positive"));

        private T Optional<T>(string key, T fallback) => json[key] is { } node ? Convert<T>(key, node) : fallback;

        private T Value<T>(string key) => json[key] is { } node ? Convert<T>(key, node) : throw Wrong(key, "is missing");

        private T Convert<T>(string key, JsonNode node)
        {
            try
            {
                return node.GetValue<T>();
            }
            catch (Exception e) when (e is InvalidOperationException or FormatException)
            {
                if (typeof(T) == typeof(int) && node is JsonValue number && number.TryGetValue(out long _))
                {
                    throw Wrong(key, $"{node.ToJsonString()} must be between 1 and {MostOfAnything}");
                }

                string kind = typeof(T) == typeof(int) ? "a whole number" : typeof(T) == typeof(double) ? "a number" : typeof(T) == typeof(bool) ? "true or false" : "text";
                throw Wrong(key, $"{node.ToJsonString()} is not {kind}");
            }
        }

        private JobInputException Wrong(string key, string what) => new($"{path}: {key}: {what}");
    }
}
