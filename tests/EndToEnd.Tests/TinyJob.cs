using System.Text;
using System.Text.Json.Nodes;

namespace Trainer.EndToEnd.Tests;

/// <summary>The files of a job that trains in seconds: a byte-level tokenizer, a small Qwen3 with random weights, made-up chats.</summary>
internal static class TinyJob
{
    public const string File = "tiny.yaml";
    public const string Dataset = "train.jsonl";
    public const string Model = "model.json";
    public const string Tokenizer = "tokenizer/tokenizer.json";
    public const int Steps = 30;
    public const int CheckpointEvery = 5;

    private const string SplitPattern =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    private static readonly string[][] s_merges = [["h", "e"], ["l", "l"], ["he", "ll"], ["Ġ", "t"], ["Ġt", "he"], ["u", "s"]];
    private static readonly string[] s_special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    private static readonly string[] s_added = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"];
    private static readonly string[] s_words = ["apple", "river", "stone", "cloud", "the hill", "shell", "house", "plus", "lamp", "forest"];

    public static string Yaml { get; } = $"""
        name: tiny
        model:
          config: {Model}
          tokenizer: tokenizer
        data:
          train:
            - path: {Dataset}
              format: messages
          eval_fraction: 0.05
          max_length: 128
        training:
          steps: {Steps}
          batch_tokens: 2048
          threads: 1
        optimizer:
          learning_rate: 3.0e-3
          warmup_steps: 3
        evaluation:
          every: 10
        checkpoint:
          every: {CheckpointEvery}
          keep: 2
        samples:
          every: 7
          max_new_tokens: 4
          prompts:
            - Say river 2 times.

        """;

    /// <summary>Writes everything into the folder; <see cref="File"/> is the job.</summary>
    public static void Write(string folder)
    {
        Directory.CreateDirectory(Path.Combine(folder, "tokenizer"));
        System.IO.File.WriteAllText(Path.Combine(folder, File), Yaml);
        System.IO.File.WriteAllText(Path.Combine(folder, Model), ModelConfig().ToJsonString());
        System.IO.File.WriteAllText(Path.Combine(folder, Tokenizer), TokenizerJson().ToJsonString());
        System.IO.File.WriteAllText(Path.Combine(folder, "tokenizer/tokenizer_config.json"), """{"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}""");
        System.IO.File.WriteAllLines(Path.Combine(folder, Dataset), Chats());
    }

    /// <summary>Fewer documents than the job sees, so that it passes the end of an epoch.</summary>
    private static IEnumerable<string> Chats()
    {
        for (int i = 0; i < 640; i++)
        {
            string word = s_words[i * 7 % s_words.Length];
            yield return $$"""{"messages": [{"role": "user", "content": "Say {{word}} {{i % 4 + 1}} times."}, {"role": "assistant", "content": "{{string.Join(' ', Enumerable.Repeat(word, i % 4 + 1))}}."}]}""";
        }
    }

    private static JsonObject ModelConfig() => new()
    {
        ["architectures"] = new JsonArray("Qwen3ForCausalLM"),
        ["model_type"] = "qwen3",
        ["head_dim"] = 16,
        ["hidden_act"] = "silu",
        ["hidden_size"] = 64,
        ["intermediate_size"] = 128,
        ["max_position_embeddings"] = 512,
        ["num_attention_heads"] = 4,
        ["num_hidden_layers"] = 2,
        ["num_key_value_heads"] = 2,
        ["rms_norm_eps"] = 1e-6,
        ["rope_theta"] = 10000,
        ["tie_word_embeddings"] = true,
        ["vocab_size"] = 300,
    };

    /// <summary>256 bytes, a few merges and Qwen's added tokens, in the form of the published file.</summary>
    private static JsonObject TokenizerJson()
    {
        var vocabulary = new JsonObject();
        foreach (char letter in ByteAlphabet())
        {
            vocabulary.Add(letter.ToString(), vocabulary.Count);
        }
        foreach (string[] merge in s_merges)
        {
            vocabulary.Add(string.Concat(merge), vocabulary.Count);
        }
        int next = vocabulary.Count;
        return new JsonObject
        {
            ["version"] = "1.0",
            ["truncation"] = null,
            ["padding"] = null,
            ["added_tokens"] = new JsonArray([.. s_special.Concat(s_added).Select(content => (JsonNode)new JsonObject
            {
                ["id"] = next++, ["content"] = content, ["single_word"] = false, ["lstrip"] = false, ["rstrip"] = false,
                ["normalized"] = false, ["special"] = s_special.Contains(content),
            })]),
            ["normalizer"] = new JsonObject { ["type"] = "NFC" },
            ["pre_tokenizer"] = new JsonObject
            {
                ["type"] = "Sequence",
                ["pretokenizers"] = new JsonArray(
                    new JsonObject
                    {
                        ["type"] = "Split", ["pattern"] = new JsonObject { ["Regex"] = SplitPattern }, ["behavior"] = "Isolated", ["invert"] = false,
                    },
                    ByteLevel()),
            },
            ["post_processor"] = ByteLevel(),
            ["decoder"] = ByteLevel(),
            ["model"] = new JsonObject
            {
                ["type"] = "BPE",
                ["vocab"] = vocabulary,
                ["merges"] = new JsonArray([.. s_merges.Select(merge => (JsonNode)$"{merge[0]} {merge[1]}")]),
            },
        };
    }

    private static JsonObject ByteLevel() =>
        new() { ["type"] = "ByteLevel", ["add_prefix_space"] = false, ["trim_offsets"] = false, ["use_regex"] = false };

    /// <summary>GPT-2's printable stand-ins for the 256 bytes.</summary>
    private static char[] ByteAlphabet()
    {
        int next = 256;
        return [.. Enumerable.Range(0, 256).Select(b => b is (>= '!' and <= '~') or (>= 0xA1 and <= 0xAC) or >= 0xAE ? (char)b : (char)next++)];
    }
}
