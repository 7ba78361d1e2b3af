using System.Text.Json;
using System.Text.Json.Nodes;
using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

/// <summary>A tokenizer.json with the 256 bytes, four merges and whatever a test adds: ids of bytes are the bytes.</summary>
internal static class TinyTokenizer
{
    /// <summary>he, ll, hell, "Ġhe" have the ids 256 to 259.</summary>
    private static readonly string[][] s_merges = [["h", "e"], ["l", "l"], ["he", "ll"], ["Ġ", "he"]];

    public static JsonObject Json(bool mergesAsPairs = true)
    {
        var vocabulary = new JsonObject();
        for (int b = 0; b < 256; b++)
        {
            vocabulary.Add(ByteAlphabet.ToChar((byte)b).ToString(), b);
        }

        foreach (string[] merge in s_merges)
        {
            vocabulary.Add(string.Concat(merge), vocabulary.Count);
        }

        return new JsonObject
        {
            ["normalizer"] = new JsonObject { ["type"] = "NFC" },
            ["pre_tokenizer"] = new JsonObject
            {
                ["type"] = "Sequence",
                ["pretokenizers"] = new JsonArray(
                    new JsonObject
                    {
                        ["type"] = "Split", ["behavior"] = "Isolated", ["invert"] = false,
                        ["pattern"] = new JsonObject { ["Regex"] = WordScanner.Pattern },
                    },
                    new JsonObject { ["type"] = "ByteLevel", ["add_prefix_space"] = false, ["use_regex"] = false }),
            },
            ["decoder"] = new JsonObject { ["type"] = "ByteLevel" },
            ["added_tokens"] = new JsonArray(),
            ["model"] = new JsonObject
            {
                ["type"] = "BPE",
                ["vocab"] = vocabulary,
                ["merges"] = new JsonArray([.. s_merges.Select(merge => mergesAsPairs
                    ? (JsonNode)new JsonArray(merge[0], merge[1])
                    : JsonValue.Create(string.Join(' ', merge)))]),
            },
        };
    }

    public static Tokenizer Load(TemporaryFolder folder, JsonObject json)
    {
        folder.Write("tokenizer.json", json.ToJsonString());
        return Tokenizer.Load(folder.Root);
    }

    public static void AddToken(this JsonObject json, int id, string content, params string[] flags)
    {
        var token = new JsonObject { ["id"] = id, ["content"] = content };
        foreach (string flag in flags)
        {
            token[flag] = true;
        }

        json["added_tokens"]!.AsArray().Add(token);
    }
}
