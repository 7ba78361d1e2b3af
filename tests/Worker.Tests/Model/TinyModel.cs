using System.Text.Json.Nodes;
using Trainer.Contracts;
using Trainer.Worker.Attention;
using Trainer.Worker.Data;
using Trainer.Worker.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Model;

/// <summary>Small random models and batches.</summary>
internal static class TinyModel
{
    public const int Vocabulary = 97;

    public static QwenConfig Config(string type = "qwen3", int heads = 4, int kvHeads = 2, int headDim = 16, int layers = 3, bool tied = false)
    {
        string path = Path.Combine(Directory.CreateTempSubdirectory("tiny").FullName, "config.json");
        File.WriteAllText(path, type == "qwen" ? FirstQwen(heads, headDim, layers).ToJsonString() : new JsonObject
        {
            ["model_type"] = type,
            ["hidden_size"] = heads * headDim,
            ["intermediate_size"] = 80,
            ["num_hidden_layers"] = layers,
            ["num_attention_heads"] = heads,
            ["num_key_value_heads"] = kvHeads,
            ["head_dim"] = headDim,
            ["vocab_size"] = Vocabulary,
            ["rms_norm_eps"] = 1e-6,
            ["rope_theta"] = 10000.0,
            ["tie_word_embeddings"] = tied,
            ["max_position_embeddings"] = 512,
            ["initializer_range"] = 0.1,
        }.ToJsonString());
        QwenConfig config = QwenConfig.Load(path);
        Directory.Delete(Path.GetDirectoryName(path)!, recursive: true);
        return config;
    }

    /// <summary>config.json of the first Qwen.</summary>
    public static JsonObject FirstQwen(int heads = 4, int headDim = 16, int layers = 3) => new()
    {
        ["architectures"] = new JsonArray("QWenLMHeadModel"),
        ["auto_map"] = new JsonObject { ["AutoModelForCausalLM"] = "modeling_qwen.QWenLMHeadModel" },
        ["model_type"] = "qwen",
        ["hidden_size"] = heads * headDim,
        ["intermediate_size"] = 160,
        ["kv_channels"] = headDim,
        ["num_hidden_layers"] = layers,
        ["num_attention_heads"] = heads,
        ["vocab_size"] = Vocabulary,
        ["layer_norm_epsilon"] = 1e-6,
        ["rotary_emb_base"] = 10000,
        ["rotary_pct"] = 1.0,
        ["scale_attn_weights"] = true,
        ["no_bias"] = true,
        ["seq_length"] = 32,
        ["use_dynamic_ntk"] = true,
        ["use_logn_attn"] = true,
        ["initializer_range"] = 0.1,
        ["torch_dtype"] = "float32",
        ["bf16"] = false,
        ["fp16"] = false,
        ["fp32"] = false,
    };

    public static QwenModel Create(
        QwenConfig config, AttentionKind attention = AttentionKind.Flash, bool recompute = false, ScalarType dtype = ScalarType.Float32, LoraConfig? lora = null)
    {
        AttentionBackend backend = attention == AttentionKind.Math ? AttentionBackend.Math : AttentionBackend.Flash;
        var model = new QwenModel(config, new ModelPlacement(dtype, CPU), backend, recompute);
        Weights.Initialize(model, seed: 7);
        if (lora is not null)
        {
            LoraAdapters adapters = model.AttachLora(lora, seed: 5);
            using var _ = no_grad();
            foreach (LoraAdapter adapter in adapters.All)
            {
                adapter.B.normal_(0, 0.05);
            }
        }

        return model;
    }

    /// <summary>Documents of the given lengths, their labels mostly trained.</summary>
    public static PackedBatch Batch(int seed, params int[] lengths)
    {
        var random = new Random(seed);
        var tokens = new List<int>();
        var labels = new List<long>();
        var positions = new List<int>();
        var offsets = new List<int> { 0 };
        foreach (int length in lengths)
        {
            int[] document = [.. Enumerable.Range(0, length).Select(_ => random.Next(Vocabulary))];
            for (int i = 0; i < length; i++)
            {
                tokens.Add(document[i]);
                positions.Add(i);
                labels.Add(i + 1 < length && random.Next(5) > 0 ? document[i + 1] : PackedBatch.Ignored);
            }

            offsets.Add(tokens.Count);
        }

        return new PackedBatch
        {
            Tokens = [.. tokens],
            Labels = [.. labels],
            Positions = [.. positions],
            CuSeqlens = [.. offsets],
            Documents = [.. Enumerable.Range(0, lengths.Length)],
            TrainedTokens = labels.Count(label => label != PackedBatch.Ignored),
        };
    }

    /// <summary>The same documents, each a batch of its own.</summary>
    public static IEnumerable<PackedBatch> Separate(PackedBatch batch)
    {
        for (int i = 0; i + 1 < batch.CuSeqlens.Length; i++)
        {
            Range range = batch.CuSeqlens[i]..batch.CuSeqlens[i + 1];
            long[] labels = batch.Labels[range];
            yield return new PackedBatch
            {
                Tokens = batch.Tokens[range],
                Labels = labels,
                Positions = batch.Positions[range],
                CuSeqlens = [0, labels.Length],
                Documents = [i],
                TrainedTokens = labels.Count(label => label != PackedBatch.Ignored),
            };
        }
    }

    /// <summary>Adds the batch's gradients to the model's and returns its share of the loss.</summary>
    public static double Backward(QwenModel model, PackedBatch batch, double scale, ulong dropoutSeed = 0)
    {
        using DisposeScope scope = NewDisposeScope();
        using ModelInput input = ModelInput.From(batch, CPU);
        Tensor loss = model.Loss(input, scale, dropoutSeed);
        loss.backward();
        return loss.ToDouble();
    }

    public static Dictionary<string, float[]> Gradients(QwenModel model) => model.TrainedTensors().ToDictionary(
        tensor => tensor.Name, tensor => Array(tensor.Slice(tensor.Parameter.grad!)));

    public static float[] Array(Tensor tensor)
    {
        using DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        return tensor.detach().to(ScalarType.Float32).contiguous().view(-1).data<float>().ToArray();
    }
}
