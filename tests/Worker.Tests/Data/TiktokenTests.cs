using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Json;
using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

/// <summary>The first Qwen's vocabulary. Later Qwens have the same tokens with the same ids, so their golden ids hold here, too.</summary>
public sealed class TiktokenTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Golden_texts_have_the_ids_of_later_qwens()
    {
        Write(RealTokens());
        var tokenizer = Tokenizer.Load(_folder.Root);
        Assert.Equal((151_851, 151_643), (tokenizer.VocabularySize, tokenizer.EndOfText));
        Assert.Equal([151_645, 151_643], tokenizer.EndTokens);
        Assert.Equal([151_644, 151_645, 151_646, 151_850], tokenizer.Encode("<|im_start|><|im_end|><|extra_0|><|extra_204|>"));
        using JsonDocument golden = JsonDocument.Parse(File.ReadAllBytes(Repository.File("tests", "golden", "tokens.json")));
        int compared = 0;
        foreach (JsonElement text in golden.RootElement.GetProperty("texts").EnumerateArray())
        {
            int[] ids = [.. text.GetProperty("ids").EnumerateArray().Select(id => id.GetInt32())];
            if (ids.All(id => id <= 151_645))
            {
                Assert.Equal(ids, tokenizer.Encode(text.GetProperty("text").GetString()!));
                Assert.Equal(text.GetProperty("decoded").GetString(), tokenizer.Decode(ids));
                compared++;
            }
        }

        Assert.InRange(compared, 10, int.MaxValue);
    }

    [Fact]
    public void Neighbours_merge_wherever_their_bytes_are_a_token_and_a_word_that_is_one_is_that_token()
    {
        // No merge leads to "xyz": only a word of its own is that token.
        Write([.. Bytes(), "bc"u8.ToArray(), "ab"u8.ToArray(), "abc"u8.ToArray(), "xyz"u8.ToArray(), "bcd"u8.ToArray()]);
        var tokenizer = Tokenizer.Load(_folder.Root);
        Assert.Equal([258], tokenizer.Encode("abc"));
        Assert.Equal([257], tokenizer.Encode("ab"));
        Assert.Equal([258, 258], tokenizer.Encode("abcabc"));
        Assert.Equal(['z', 260], tokenizer.Encode("zbcd"));
        Assert.Equal([259], tokenizer.Encode("xyz"));
        Assert.Equal(['x', 'y', 'z', 'x'], tokenizer.Encode("xyzx"));
        Assert.Equal("abcxyz<|im_end|>", tokenizer.Decode([258, 259, 151_645]));
        Assert.Equal("abcxyz", tokenizer.Decode([258, 259, 151_645], skipSpecial: true));
    }

    [Fact]
    public void Text_is_brought_to_nfc_before_control_tokens_are_sought()
    {
        Write(Bytes());
        var tokenizer = Tokenizer.Load(_folder.Root);
        Assert.Equal([0xC3, 0xA9], tokenizer.Encode("e\u0301"));
        Assert.Equal([151_645], tokenizer.Encode("<|im_end|>"));
        Assert.Equal(10, tokenizer.Encode("<|im_end|>", allowSpecial: false).Length);
        // A combining slash makes one character of ">" and itself.
        Assert.DoesNotContain(151_645, tokenizer.Encode("<|im_end|>\u0338"));
    }

    [Fact]
    public void A_tokenizer_json_beside_it_is_taken()
    {
        Write(Bytes());
        Assert.Equal(260, TinyTokenizer.Load(_folder, TinyTokenizer.Json()).VocabularySize);
    }

    [Theory]
    [InlineData("YQ== 0\nnon-sense 1\n", ":2: \"non-sense 1\" is not a token in base64 and a rank below 151643")]
    [InlineData("YQ== 0\nYg==\n", ":2: \"Yg==\" is not a token")]
    [InlineData("YQ== 0\n\nYg== one\n", ":3: \"Yg== one\" is not a token")]
    [InlineData("YQ== 0\nYg== 0\n", ":2: a second token of rank 0")]
    [InlineData("YQ== 0\nYg== 2\n", ": 2 tokens where the first Qwen has 151643; that of rank 1 is missing")]
    [InlineData("YQ== -1\n", ":1: \"YQ== -1\" is not a token")]
    [InlineData("YQ== 151643\n", ":1: \"YQ== 151643\" is not a token")]
    [InlineData("", ": the file is empty")]
    [InlineData("version https://git-lfs.github.com/spec/v1\n", ":1: \"version https://git-lfs.github.com/spec/\" is not a token")]
    public void A_damaged_file_is_refused_with_its_line(string content, string complaint)
    {
        string path = _folder.Write("qwen.tiktoken", content);
        JobInputException error = Assert.Throws<JobInputException>(() => Tokenizer.Load(_folder.Root));
        Assert.StartsWith(path + complaint, error.Message, StringComparison.Ordinal);
        Assert.EndsWith("download the file again", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_vocabulary_that_was_cut_at_a_line_or_has_a_token_twice_or_lacks_a_byte_is_refused()
    {
        // Its control tokens would have other ids.
        Refused([.. Whole(Bytes()).SkipLast(1)], "151642 tokens where the first Qwen has 151643; that of rank 151642 is missing");
        Refused([.. Whole(Bytes()).SkipLast(1), [(byte)'a']], "the token of rank 151642 is that of a lower rank, too");
        Refused([.. Whole(Bytes().Skip(1))], "no token is the byte 0x00");

        void Refused(byte[][] tokens, string complaint)
        {
            Lines(tokens);
            Assert.EndsWith($"qwen.tiktoken: {complaint}; download the file again", Assert.Throws<JobInputException>(() => Tokenizer.Load(_folder.Root)).Message, StringComparison.Ordinal);
        }
    }

    private static IEnumerable<byte[]> Bytes() => Enumerable.Range(0, 256).Select(b => new[] { (byte)b });

    /// <summary>Of the Qwen3 tokenizer, whose vocabulary was made from qwen.tiktoken.</summary>
    private static IEnumerable<byte[]> RealTokens()
    {
        using JsonDocument json = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(Fixtures.TokenizerDirectory, "tokenizer.json")));
        foreach (JsonProperty token in json.RootElement.GetProperty("model").GetProperty("vocab").EnumerateObject().OrderBy(token => token.Value.GetInt32()))
        {
            var bytes = new ArrayBufferWriter<byte>();
            ByteAlphabet.Decode(Encoding.UTF8.GetBytes(token.Name), bytes);
            yield return bytes.WrittenSpan.ToArray();
        }
    }

    /// <summary>With others, which no text here has, to the number that a vocabulary has.</summary>
    private static IEnumerable<byte[]> Whole(IEnumerable<byte[]> tokens)
    {
        byte[][] given = [.. tokens];
        return given.Concat(Enumerable.Range(0, 151_643 - given.Length).Select(i => new byte[] { 0xFF, (byte)(i >> 16), (byte)(i >> 8), (byte)i }));
    }

    private void Write(IEnumerable<byte[]> tokens) => Lines(Whole(tokens));

    private void Lines(IEnumerable<byte[]> tokens) => _folder.Write(
        "qwen.tiktoken", string.Concat(tokens.Select((token, rank) => string.Create(CultureInfo.InvariantCulture, $"{Convert.ToBase64String(token)} {rank}\n"))));
}
