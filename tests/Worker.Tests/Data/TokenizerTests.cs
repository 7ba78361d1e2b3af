using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Trainer.Contracts;
using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

public sealed class TokenizerTests
{
    private static readonly JsonElement s_golden = JsonDocument.Parse(
        File.ReadAllBytes(Path.Combine(Fixtures.Root, "tests", "golden", "tokens.json"))).RootElement;

    private static Tokenizer Tokenizer => Fixtures.Qwen3;

    [Fact]
    public void Golden_texts_have_the_ids_and_the_decoding_of_hugging_face()
    {
        foreach (JsonElement golden in s_golden.GetProperty("texts").EnumerateArray())
        {
            int[] ids = Tokenizer.Encode(golden.GetProperty("text").GetString()!);
            Assert.Equal(Ints(golden.GetProperty("ids")), ids);
            Assert.Equal(golden.GetProperty("decoded").GetString(), Tokenizer.Decode(ids));
        }
    }

    [Fact]
    public void Golden_chats_have_the_text_the_ids_and_the_prompt_of_hugging_face()
    {
        var template = ChatTemplate.Create(TemplateKind.Qwen3);
        foreach (JsonElement golden in s_golden.GetProperty("chats").EnumerateArray())
        {
            Message[] messages = [.. golden.GetProperty("messages").EnumerateArray()
                .Select(m => new Message(m.GetProperty("role").GetString()!, m.GetProperty("content").GetString()!))];
            var conversation = new Conversation(messages);
            Assert.Equal(golden.GetProperty("text").GetString(), string.Concat(template.Render(conversation).Select(s => s.Text)));
            Assert.Equal(Ints(golden.GetProperty("ids")), template.Tokenize(conversation, Tokenizer).Ids);
            string prompt = string.Concat(template.RenderPrompt(new Conversation(messages[..^1])).Select(s => s.Text));
            Assert.Equal(golden.GetProperty("prompt_text").GetString(), prompt);
        }
    }

    [Fact]
    public void Random_unicode_survives_encoding_and_decoding()
    {
        var random = new Random(11);
        for (int round = 0; round < 300; round++)
        {
            var text = new StringBuilder();
            for (int i = random.Next(40); i >= 0; i--)
            {
                int scalar = random.Next(4) switch { 0 => random.Next(0x80), 1 => random.Next(0x3000), 2 => 0x10000 + random.Next(0x20000), _ => random.Next(0x110000) };
                text.Append(Rune.IsValid(scalar) ? new Rune(scalar).ToString() : "\r\n ");
            }

            string normal = text.ToString().Normalize();
            Assert.Equal(normal, Tokenizer.Decode(Tokenizer.Encode(text.ToString())));
        }
    }

    [Fact]
    public void The_word_cache_does_not_change_ids()
    {
        string text = string.Concat(Enumerable.Range(0, 30_000).Select(i => $" word{(char)('a' + (i % 26))}{(char)('a' + (i / 26 % 26))}x"));
        Assert.Equal(Tokenizer.Encode(text), Tokenizer.Encode(text));
        Assert.Equal(Tokenizer.Load(Fixtures.TokenizerDirectory).Encode(text), Tokenizer.Encode(text));
    }

    [Fact]
    public void A_word_of_a_hundred_thousand_letters_is_encoded_in_one_go()
    {
        int[] ids = Tokenizer.Encode(new string('x', 100_000));
        Assert.Equal(new string('x', 100_000), Tokenizer.Decode(ids));
        Assert.True(ids.Length < 15_000);
    }

    [Fact]
    public void Special_tokens_in_the_text_of_a_stranger_are_ordinary_text_on_demand()
    {
        const string Text = "bye<|im_end|>\n<think>";
        Assert.Contains(151645, Tokenizer.Encode(Text));
        int[] ids = Tokenizer.Encode(Text, allowSpecial: false);
        Assert.DoesNotContain(151645, ids);
        Assert.Contains(151667, ids); // <think> is added, but not special: as Hugging Face's split_special_tokens
        Assert.Equal(Text, Tokenizer.Decode(ids));
    }

    [Fact]
    public void Decoding_can_leave_out_special_tokens_and_ignores_ids_without_a_token()
    {
        int[] ids = Tokenizer.Encode("<|im_start|>hi<think><|im_end|>");
        Assert.Equal("hi<think>", Tokenizer.Decode(ids, skipSpecial: true));
        Assert.Equal("hi", Tokenizer.Decode([.. Tokenizer.Encode("hi"), 151_900, -1]));
    }

    [Fact]
    public void A_stream_shows_a_character_when_all_its_bytes_are_there()
    {
        const string Text = "emoji 👩‍👩‍👧‍👦 é 漢字!";
        int[] ids = Tokenizer.Encode(Text);
        var stream = new TokenStream(Tokenizer);
        string[] parts = [.. ids.Select(stream.Append), stream.Finish()];
        Assert.DoesNotContain(parts, part => part.Contains('\uFFFD'));
        Assert.Equal(Text, string.Concat(parts));

        int[] robot = Tokenizer.Encode("🤖 🏳");
        var cut = new TokenStream(Tokenizer);
        string cutText = string.Concat(robot[..^1].Select(cut.Append)) + cut.Finish();
        Assert.EndsWith("\uFFFD", cutText, StringComparison.Ordinal);
    }

    [Fact]
    public void Lone_surrogates_become_the_replacement_character() =>
        Assert.Equal(Tokenizer.Encode("a\uFFFDb"), Tokenizer.Encode("a\uD800b"));

    [Fact]
    public void The_end_tokens_and_the_size_come_from_the_snapshot()
    {
        Assert.Equal(151_669, Tokenizer.VocabularySize);
        Assert.Equal([151645], Tokenizer.EndTokens);
        Assert.Equal(151643, Tokenizer.EndOfText);
        Assert.Equal(151643, Tokenizer.Padding);
        Assert.Equal(151644, Tokenizer.TokenId("<|im_start|>"));
        var e = Assert.Throws<JobInputException>(() => Tokenizer.TokenId("<|nope|>"));
        Assert.Contains("no token \"<|nope|>\"", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Merges_are_read_as_pairs_and_as_strings(bool pairs)
    {
        using var folder = new TemporaryFolder();
        Tokenizer tiny = TinyTokenizer.Load(folder, TinyTokenizer.Json(pairs));
        Assert.Equal([258, 'o', 259, 'l'], tiny.Encode("hello hel"));
        Assert.Equal(260, tiny.VocabularySize);
    }

    [Fact]
    public void Added_tokens_strip_space_stand_alone_and_prefer_the_longest()
    {
        using var folder = new TemporaryFolder();
        JsonObject json = TinyTokenizer.Json();
        json.AddToken(300, "<m>", "lstrip", "rstrip");
        json.AddToken(301, "<m>x");
        json.AddToken(302, "word", "single_word");
        json.AddToken(303, "é", "normalized");
        json.AddToken(304, "<s>", "special");
        Tokenizer tiny = TinyTokenizer.Load(folder, json);

        Assert.Equal(['a', 300, 'b'], tiny.Encode("a \n<m>\t b"));
        Assert.Equal(['a', ' ', 301, ' ', 'b'], tiny.Encode("a <m>x b"));
        Assert.Equal([302, '.', 302], tiny.Encode("word.word"));
        Assert.Equal("sword"u8.ToArray().Select(b => (int)b), tiny.Encode("sword"));
        Assert.Equal(['a', 303, 'b'], tiny.Encode("ae\u0301b"));
        Assert.Equal([304, 300], tiny.Encode("<s><m>"));
        Assert.Equal(['<', 's', '>', 300], tiny.Encode("<s><m>", allowSpecial: false));
        Assert.Equal("a<m>b", tiny.Decode(tiny.Encode("a <m> b")));
    }

    [Fact]
    public void End_tokens_of_generation_config_come_first()
    {
        using var folder = new TemporaryFolder();
        folder.Write("generation_config.json", """{"eos_token_id": [7, 9]}""");
        folder.Write("tokenizer_config.json", """{"eos_token": {"content": "!"}, "pad_token": "h"}""");
        Tokenizer tiny = TinyTokenizer.Load(folder, TinyTokenizer.Json());
        Assert.Equal([7, 9, '!'], tiny.EndTokens);
        Assert.Equal(7, tiny.EndOfText);
        Assert.Equal('h', tiny.Padding);
    }

    [Fact]
    public void A_missing_or_broken_file_is_named_with_its_cure()
    {
        using var folder = new TemporaryFolder();
        AssertRefused(folder, "tokenizer.json: no such file; set model.tokenizer");
        folder.Write("tokenizer.json", "{\n \"model\": {,");
        AssertRefused(folder, "tokenizer.json:2: malformed JSON at byte 12; download the file again");
        folder.Write("tokenizer.json", "{}");
        AssertRefused(folder, "\"model\" is missing or not object; download");
    }

    [Theory]
    [InlineData("model.type", "\"Unigram\"", "unsupported model type Unigram; only BPE")]
    [InlineData("normalizer.type", "\"NFKC\"", "unsupported normalizer NFKC; only NFC")]
    [InlineData("decoder.type", "\"Metaspace\"", "unsupported decoder Metaspace; only ByteLevel")]
    [InlineData("pre_tokenizer.pretokenizers.0.pattern.Regex", "\"\\\\w+\"", "(split pattern \\w+); only the split pattern of Qwen2")]
    [InlineData("pre_tokenizer.pretokenizers.1.add_prefix_space", "true", "unsupported pre_tokenizer")]
    [InlineData("model.ignore_merges", "true", "unsupported BPE option ignore_merges")]
    [InlineData("model.dropout", "0.1", "unsupported BPE option dropout = 0.1")]
    [InlineData("model.merges.1", "[\"l\"]", "merge 1 is [\"l\"], not a pair of tokens")]
    [InlineData("model.merges.2", "[\"l\", \"h\"]", "merge 2 is [\"l\",\"h\"], not a pair of tokens")]
    [InlineData("model.vocab.he", "-1", "token \"he\" has the id -1")]
    [InlineData("model.vocab.he", "1e99", "token \"he\" has the id 1e99")]
    public void What_would_tokenise_differently_is_refused(string path, string value, string message)
    {
        using var folder = new TemporaryFolder();
        JsonObject json = TinyTokenizer.Json();
        string[] steps = path.Split('.');
        JsonNode node = json;
        foreach (string step in steps[..^1])
        {
            node = int.TryParse(step, out int index) ? node[index]! : node[step]!;
        }

        if (int.TryParse(steps[^1], out int last))
        {
            node[last] = JsonNode.Parse(value);
        }
        else
        {
            node[steps[^1]] = JsonNode.Parse(value);
        }

        folder.Write("tokenizer.json", json.ToJsonString(new JsonSerializerOptions { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping }));
        AssertRefused(folder, message);
    }

    [Fact]
    public void A_byte_without_a_token_is_an_error_and_not_lost()
    {
        using var folder = new TemporaryFolder();
        JsonObject json = TinyTokenizer.Json();
        json["model"]!["vocab"]!.AsObject().Remove("z");
        Tokenizer tiny = TinyTokenizer.Load(folder, json);
        var e = Assert.Throws<JobInputException>(() => tiny.Encode("jazz"));
        Assert.Contains("no token for byte 0x7A", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Without_icu_the_tokenizer_refuses_to_work()
    {
        Tokenizer.RequireNfc(text => text.Normalize());
        var e = Assert.Throws<JobInputException>(() => Tokenizer.RequireNfc(text => text));
        Assert.Contains("apt-get install libicu", e.Message, StringComparison.Ordinal);
    }

    private static void AssertRefused(TemporaryFolder folder, string message)
    {
        var e = Assert.Throws<JobInputException>(() => Tokenizer.Load(folder.Root));
        Assert.StartsWith(folder.Path("tokenizer.json"), e.Message, StringComparison.Ordinal);
        Assert.Contains(message, e.Message, StringComparison.Ordinal);
    }

    private static int[] Ints(JsonElement array) => [.. array.EnumerateArray().Select(id => id.GetInt32())];
}
