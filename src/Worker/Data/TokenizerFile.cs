using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Trainer.Worker.Data;

/// <summary>
/// tokenizer.json of the Qwen2 to Qwen3 family, or the first Qwen's qwen.tiktoken: byte-level BPE, Qwen's split pattern, NFC. Whatever
/// would tokenise differently from Hugging Face is refused here, never approximated.
/// </summary>
internal sealed class TokenizerFile
{
    /// <summary>Spelled in the byte-level alphabet, without added tokens.</summary>
    public required Vocabulary Vocabulary { get; init; }

    public required IReadOnlyList<AddedToken> AddedTokens { get; init; }

    public required MergeTable Merges { get; init; }

    /// <summary>Whether text is brought to NFC first.</summary>
    public required bool Nfc { get; init; }

    /// <summary>As <see cref="TiktokenReader"/> reads it: a word that is a token is that token, whatever the merges say.</summary>
    public required bool IsTiktoken { get; init; }

    /// <summary>SHA-256 of the file, in hexadecimal.</summary>
    public required string Fingerprint { get; init; }

    /// <summary>The file of a folder: tokenizer.json, unless there is only qwen.tiktoken.</summary>
    public static string PathIn(string directory)
    {
        string json = Path.Combine(directory, "tokenizer.json"), tiktoken = Path.Combine(directory, TiktokenReader.FileName);
        return File.Exists(tiktoken) && !File.Exists(json) ? tiktoken : json;
    }

    public static TokenizerFile Load(string path, TokenizerCache cache)
    {
        if (!File.Exists(path))
        {
            throw new JobInputException(
                $"{path}: no such file; set model.tokenizer to a folder that holds the model's tokenizer.json or qwen.tiktoken");
        }

        byte[] bytes = File.ReadAllBytes(path);
        string fingerprint = Convert.ToHexStringLower(SHA256.HashData(bytes));
        if (cache.Read(fingerprint) is { } known)
        {
            return known;
        }

        try
        {
            TokenizerFile file = Path.GetFileName(path) == TiktokenReader.FileName ? new TiktokenReader(path).Read(bytes, fingerprint) : ReadJson(path, bytes, fingerprint);
            cache.Write(file);
            return file;
        }
        catch (JsonException e)
        {
            throw JobInputException.MalformedJson(path, e);
        }
    }

    private static TokenizerFile ReadJson(string path, byte[] bytes, string fingerprint)
    {
        using var json = JsonDocument.Parse(bytes);
        return new Reader(path).Read(json.RootElement, fingerprint);
    }

    /// <summary>Of one file, whose path its complaints name.</summary>
    private sealed class Reader(string path)
    {
        public TokenizerFile Read(JsonElement root, string fingerprint)
        {
            JsonElement model = Child(root, "model", JsonValueKind.Object);
            if (Text(model, "type") is var type && type != "BPE")
            {
                throw Unsupported($"model type {type ?? "none"}", "only BPE is supported, as in Qwen2, Qwen2.5 and Qwen3");
            }

            bool nfc = ReadNormalizer(root);
            RequirePreTokenizer(root);
            RequireByteLevel(root, "post_processor");
            RequireByteLevel(root, "decoder");
            RequirePlainMerges(model);
            Vocabulary vocabulary = ReadVocabulary(model);
            return new TokenizerFile
            {
                Fingerprint = fingerprint,
                Nfc = nfc,
                IsTiktoken = false,
                Vocabulary = vocabulary,
                Merges = ReadMerges(model, vocabulary),
                AddedTokens = ReadAddedTokens(root),
            };
        }

        private bool ReadNormalizer(JsonElement root)
        {
            bool nfc = false;
            foreach (JsonElement step in Steps(root, "normalizer", "normalizers"))
            {
                nfc = Text(step, "type") == "NFC" ? true
                    : throw Unsupported($"normalizer {Text(step, "type")}", "only NFC is supported");
            }

            return nfc;
        }

        private void RequirePreTokenizer(JsonElement root)
        {
            JsonElement[] steps = Steps(root, "pre_tokenizer", "pretokenizers");
            string? pattern = steps.Length > 0 && steps[0].TryGetProperty("pattern", out JsonElement p) ? Text(p, "Regex") : null;
            bool supported = steps.Length == 2
                && Text(steps[0], "type") == "Split" && Text(steps[0], "behavior") == "Isolated" && !Flag(steps[0], "invert")
                && pattern == WordScanner.Pattern
                && Text(steps[1], "type") == "ByteLevel" && !Flag(steps[1], "add_prefix_space") && !Flag(steps[1], "use_regex");
            if (!supported)
            {
                throw Unsupported(
                    $"pre_tokenizer (split pattern {pattern ?? "none"})",
                    "only the split pattern of Qwen2, Qwen2.5 and Qwen3 followed by ByteLevel is supported");
            }
        }

        private void RequireByteLevel(JsonElement root, string name)
        {
            foreach (JsonElement step in Steps(root, name, name == "decoder" ? "decoders" : "processors"))
            {
                if (Text(step, "type") != "ByteLevel")
                {
                    throw Unsupported($"{name} {Text(step, "type")}", "only ByteLevel is supported");
                }
            }
        }

        private void RequirePlainMerges(JsonElement model)
        {
            foreach (string option in (string[])["dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"])
            {
                if (model.TryGetProperty(option, out JsonElement value)
                    && value.ValueKind is not (JsonValueKind.Null or JsonValueKind.False)
                    && !(value.ValueKind == JsonValueKind.String && value.GetString() == "")
                    && !(value.ValueKind == JsonValueKind.Number && value.GetDouble() == 0))
                {
                    throw Unsupported($"BPE option {option} = {value}", "Qwen's tokenizers leave it off");
                }
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private Vocabulary ReadVocabulary(JsonElement model)
        {
            JsonElement entries = Child(model, "vocab", JsonValueKind.Object);
            var vocabulary = new Vocabulary(entries.GetPropertyCount());
            foreach (JsonProperty entry in entries.EnumerateObject())
            {
                ReadOnlySpan<byte> name = JsonMarshal.GetRawUtf8PropertyName(entry);
                vocabulary.Add(IsPlain(name) ? name : Encoding.UTF8.GetBytes(entry.Name), Id(entry));
            }

            return vocabulary;
        }

        /// <summary>Merges are written as "a b" by older and as ["a", "b"] by newer versions; their order is their rank.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private MergeTable ReadMerges(JsonElement model, Vocabulary vocabulary)
        {
            JsonElement list = Child(model, "merges", JsonValueKind.Array);
            var merges = new Dictionary<long, MergeTable.Merge>(list.GetArrayLength());
            byte[] union = new byte[256];
            int rank = 0;
            foreach (JsonElement item in list.EnumerateArray())
            {
                if (!IsPair(item, out ReadOnlySpan<byte> first, out ReadOnlySpan<byte> second)
                    || !vocabulary.TryFind(first, out int left)
                    || !vocabulary.TryFind(second, out int right)
                    || !vocabulary.TryFind(Union(first, second), out int merged))
                {
                    throw Broken($"merge {rank} is {item.GetRawText()}, not a pair of tokens whose union is in the vocabulary");
                }

                merges[MergeTable.Key(left, right)] = new MergeTable.Merge(rank++, merged);
            }

            return new MergeTable(merges);

            ReadOnlySpan<byte> Union(ReadOnlySpan<byte> first, ReadOnlySpan<byte> second)
            {
                int length = first.Length + second.Length;
                if (union.Length < length)
                {
                    union = new byte[length * 2];
                }

                first.CopyTo(union);
                second.CopyTo(union.AsSpan(first.Length));
                return union.AsSpan(0, length);
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static bool IsPair(JsonElement item, out ReadOnlySpan<byte> first, out ReadOnlySpan<byte> second)
        {
            first = second = default;
            switch (item.ValueKind)
            {
                case JsonValueKind.String:
                    ReadOnlySpan<byte> both = Utf8(item);
                    int space = both.IndexOf((byte)' ');
                    if (space < 0)
                    {
                        return false;
                    }

                    first = both[..space];
                    second = both[(space + 1)..];
                    return true;
                case JsonValueKind.Array when item.GetArrayLength() == 2
                    && item[0].ValueKind == JsonValueKind.String && item[1].ValueKind == JsonValueKind.String:
                    first = Utf8(item[0]);
                    second = Utf8(item[1]);
                    return true;
                default:
                    return false;
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static ReadOnlySpan<byte> Utf8(JsonElement text)
        {
            ReadOnlySpan<byte> quoted = JsonMarshal.GetRawUtf8Value(text);
            return IsPlain(quoted) ? quoted[1..^1] : Encoding.UTF8.GetBytes(text.GetString()!);
        }

        /// <summary>Written as it is, without escapes.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static bool IsPlain(ReadOnlySpan<byte> json) => !json.Contains((byte)'\\');

        private List<AddedToken> ReadAddedTokens(JsonElement root)
        {
            List<AddedToken> tokens = [];
            if (!root.TryGetProperty("added_tokens", out JsonElement list) || list.ValueKind == JsonValueKind.Null)
            {
                return tokens;
            }

            foreach (JsonElement token in Child(root, "added_tokens", JsonValueKind.Array).EnumerateArray())
            {
                string content = Child(token, "content", JsonValueKind.String).GetString()!;
                if (content.Length > 0)
                {
                    tokens.Add(new AddedToken(
                        Id(Child(token, "id", JsonValueKind.Number), content), content,
                        Special: Flag(token, "special"), StripLeft: Flag(token, "lstrip"), StripRight: Flag(token, "rstrip"),
                        Normalized: Flag(token, "normalized"), SingleWord: Flag(token, "single_word")));
                }
            }

            return tokens;
        }

        /// <summary>A step of the pipeline: absent, one object, or a Sequence of objects.</summary>
        private JsonElement[] Steps(JsonElement root, string name, string listName)
        {
            if (!root.TryGetProperty(name, out JsonElement step) || step.ValueKind == JsonValueKind.Null)
            {
                return [];
            }

            step = Child(root, name, JsonValueKind.Object);
            return Text(step, "type") == "Sequence" ? [.. Child(step, listName, JsonValueKind.Array).EnumerateArray()] : [step];
        }

        private JsonElement Child(JsonElement parent, string name, JsonValueKind kind) =>
            parent.ValueKind == JsonValueKind.Object && parent.TryGetProperty(name, out JsonElement child) && child.ValueKind == kind
                ? child
                : throw Broken($"\"{name}\" is missing or not {kind.ToString().ToLowerInvariant()}");

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private int Id(JsonProperty token) => IdOrNull(token.Value) ?? throw BrokenId(token.Name, token.Value);

        private int Id(JsonElement value, string token) => IdOrNull(value) ?? throw BrokenId(token, value);

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static int? IdOrNull(JsonElement value) =>
            value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int id) && id is >= 0 and < (1 << 24) ? id : null;

        private JobInputException BrokenId(string token, JsonElement id) => Broken($"token \"{token}\" has the id {id.GetRawText()}");

        private static string? Text(JsonElement parent, string name) =>
            parent.ValueKind == JsonValueKind.Object && parent.TryGetProperty(name, out JsonElement value) ? TextOrNull(value) : null;

        private static string? TextOrNull(JsonElement value) => value.ValueKind == JsonValueKind.String ? value.GetString() : null;

        private static bool Flag(JsonElement parent, string name) =>
            parent.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.True;

        private JobInputException Broken(string what) => new($"{path}: {what}; download the file again");

        private JobInputException Unsupported(string what, string cure) => new($"{path}: unsupported {what}; {cure}");
    }
}
