using System.Text.Json.Nodes;
using Trainer.Worker.Model;
using Trainer.Worker.Tests.Checkpoints;
using Trainer.Worker.Training;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Model;

/// <summary>What only the first Qwen has. Its numbers are held by tests/golden/qwen1-base.</summary>
public sealed class FirstQwenTests
{
    [Theory]
    [InlineData("kv_channels", "8", "kv_channels: 8 times num_attention_heads 4 is not hidden_size 64")]
    [InlineData("kv_channels", "15", "kv_channels: 15 is not supported; it must be even and at most 256")]
    [InlineData("intermediate_size", "161", "intermediate_size: 161 is odd")]
    [InlineData("no_bias", "false", "no_bias: false is not supported, only true")]
    [InlineData("rotary_pct", "0.25", "rotary_pct: 0.25 is not supported, only 1")]
    [InlineData("attn_dropout_prob", "0.1", "attn_dropout_prob: 0.1 is not supported, only 0")]
    [InlineData("seq_length", "0", "seq_length: 0 must be between 1 and")]
    [InlineData("layer_norm_epsilon", "\"tiny\"", "layer_norm_epsilon: \"tiny\" is not a number")]
    [InlineData("architectures", "[\"Qwen2ForCausalLM\"]", "architectures: 'Qwen2ForCausalLM' is not supported; a qwen model is trained as QWenLMHeadModel")]
    [InlineData("num_hidden_layers", null, "num_hidden_layers: is missing")]
    public void What_is_not_supported_is_refused_by_its_key(string key, string? value, string complaint)
    {
        using var folder = new TemporaryDirectory();
        string path = Path.Combine(folder.Path, "config.json");
        JsonObject config = TinyModel.FirstQwen();
        config[key] = value is null ? null : JsonNode.Parse(value);
        File.WriteAllText(path, config.ToJsonString());
        Assert.StartsWith($"{path}: {complaint}", Assert.Throws<JobInputException>(() => QwenConfig.Load(path)).Message, StringComparison.Ordinal);
    }

    /// <summary>alpha = 2^ceil(log2(n / length) + 1) - 1, at least 1; base * alpha^(d / (d - 2)).</summary>
    [Theory]
    [InlineData(5, 1)]
    [InlineData(32, 1)]
    [InlineData(33, 3)]
    [InlineData(64, 3)]
    [InlineData(65, 7)]
    [InlineData(256, 15)]
    public void Longer_prompts_turn_more_slowly(int prompt, int alpha)
    {
        var length = new LongContext(32, ScalesBase: true, ScalesQueries: true);
        Assert.Equal(10000 * Math.Pow(alpha, 16 / 14.0), length.Theta(10000, 16, prompt), 6);
        Assert.Equal(10000, (length with { ScalesBase = false }).Theta(10000, 16, prompt));
    }

    [Fact]
    public void Queries_beyond_the_trained_length_grow_by_the_logarithm_of_their_position()
    {
        var length = new LongContext(32, ScalesBase: true, ScalesQueries: true);
        Assert.Null(length.QueryScale(0, 32));
        Assert.Equal([1f, 1f, (float)(Math.Log(33) / Math.Log(32))], length.QueryScale(30, 3)!);
        Assert.Null((length with { ScalesQueries = false }).QueryScale(30, 3));
    }

    [Fact]
    public void Generation_token_by_token_is_that_of_the_whole_at_once()
    {
        using QwenModel model = TinyModel.Create(TinyModel.Config("qwen"));
        int[] prompt = [.. Enumerable.Range(0, 40).Select(i => (i * 31) % TinyModel.Vocabulary)];
        int[] tokens = [.. prompt, .. TextGenerator.Continue(model, prompt, 30, 0, [], seed: 0)];
        using var cache = new GenerationCache(model.Config, prompt.Length, CPU);
        using Tensor logits = model.Continue(tokens.AsSpan()[..^1], cache, 30);
        using Tensor best = logits.argmax(1);
        Assert.Equal(tokens[40..], best.data<long>().ToArray().Select(token => (int)token));

        // Not those of training, which knows nothing of lengths.
        using ModelInput input = ModelInput.Sequence(tokens.AsSpan()[..^1], 0, CPU);
        using Tensor trained = model.Logits(input), last = trained.narrow(0, 39, 30);
        Assert.NotEqual(TinyModel.Array(last), TinyModel.Array(logits));
    }

    [Fact]
    public void What_adds_to_the_residual_stream_is_drawn_smaller()
    {
        using QwenModel model = TinyModel.Create(TinyModel.Config("qwen", layers: 8));
        Assert.InRange(Deviation("transformer.h.0.attn.c_attn.weight"), 0.095, 0.105);
        Assert.InRange(Deviation("transformer.h.0.attn.c_proj.weight"), 0.0235, 0.0265);
        Assert.InRange(Deviation("transformer.h.7.mlp.c_proj.weight"), 0.0235, 0.0265);

        double Deviation(string name)
        {
            NamedTensor weight = model.NamedTensors().Single(tensor => tensor.Name == name);
            float[] values = TinyModel.Array(weight.Slice(weight.Parameter));
            return Math.Sqrt(values.Average(value => value * (double)value));
        }
    }
}
