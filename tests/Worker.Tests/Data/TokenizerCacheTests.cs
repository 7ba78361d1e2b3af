using System.Text.Json.Nodes;
using Trainer.Contracts;
using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

public sealed class TokenizerCacheTests : IDisposable
{
    private const string Text = "hello <mark> hé the hell\n\n<|im_start|>x<|im_end|>  9\ud83d\ude00";

    private readonly TemporaryFolder _folder = new();
    private readonly TemporaryFolder _place = new();

    private TrainerHome Home => new(_place.Path("home"));

    [Fact]
    public void What_was_kept_tokenises_as_what_was_read()
    {
        Directory.CreateDirectory(Home.Directory);
        Write();
        Tokenizer read = Load();
        string kept = Assert.Single(Directory.GetFiles(Home.Tokenizers));
        AssertSame(read, Load());
        Assert.Equal(Path.GetFileName(kept).Split('.')[0], read.Fingerprint);

        // It was really taken from there: a home that lacks it has to parse the file.
        byte[] bytes = File.ReadAllBytes(kept);
        File.WriteAllText(_folder.Path("tokenizer.json"), "{}");
        Assert.ThrowsAny<JobInputException>(() => Load());
        Write();
        File.WriteAllBytes(kept, bytes);
        Assert.NotNull(new TokenizerCache(Home).Read(read.Fingerprint));
    }

    [Fact]
    public void The_whole_tokenizer_of_qwen3_comes_back()
    {
        Directory.CreateDirectory(Home.Directory);
        Tokenizer read = Tokenizer.Load(Fixtures.TokenizerDirectory, Home);
        Assert.Single(Directory.GetFiles(Home.Tokenizers));
        Tokenizer kept = Tokenizer.Load(Fixtures.TokenizerDirectory, Home);
        AssertSame(read, kept);
        for (int id = 0; id < read.VocabularySize; id++)
        {
            Assert.Equal(read.Decode([id]), kept.Decode([id]));
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(10)]
    [InlineData(-1)]
    public void A_damaged_one_is_read_from_json_and_replaced(int at)
    {
        Directory.CreateDirectory(Home.Directory);
        Write();
        Tokenizer read = Load();
        string kept = Assert.Single(Directory.GetFiles(Home.Tokenizers));
        byte[] whole = File.ReadAllBytes(kept), damaged = [.. whole];
        damaged[at < 0 ? ^-at : at] ^= 1;
        File.WriteAllBytes(kept, damaged);
        AssertSame(read, Load());
        Assert.Equal(whole, File.ReadAllBytes(kept));

        File.WriteAllBytes(kept, whole[..(whole.Length / 2)]);
        AssertSame(read, Load());
        Assert.Equal(whole, File.ReadAllBytes(kept));
    }

    [Fact]
    public void Without_a_home_and_where_nothing_can_be_written_it_is_read_from_json()
    {
        Write();
        Tokenizer read = Load();
        Assert.False(Directory.Exists(Home.Directory));

        Directory.CreateDirectory(Home.Directory);
        File.WriteAllText(Home.Tokenizers, "a file where the folder should be");
        AssertSame(read, Load());
    }

    public void Dispose()
    {
        _folder.Dispose();
        _place.Dispose();
    }

    private void Write()
    {
        JsonObject json = TinyTokenizer.Json();
        json.AddToken(300, "<|im_start|>", "special");
        json.AddToken(301, "<|im_end|>", "special", "lstrip");
        json.AddToken(302, "<mark>", "normalized", "rstrip", "single_word");
        _folder.Write("tokenizer.json", json.ToJsonString());
    }

    private Tokenizer Load() => Tokenizer.Load(_folder.Root, Home);

    private static void AssertSame(Tokenizer expected, Tokenizer actual)
    {
        Assert.Equal(expected.Fingerprint, actual.Fingerprint);
        Assert.Equal(expected.VocabularySize, actual.VocabularySize);
        foreach (bool allow in new[] { true, false })
        {
            int[] ids = expected.Encode(Text, allow);
            Assert.Equal(ids, actual.Encode(Text, allow));
            Assert.Equal(expected.Decode(ids), actual.Decode(ids));
            Assert.Equal(expected.Decode(ids, skipSpecial: true), actual.Decode(ids, skipSpecial: true));
        }
    }
}
