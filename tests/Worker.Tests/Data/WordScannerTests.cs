using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

/// <summary>Expected words are worked out from Qwen's split pattern; '|' separates them.</summary>
public sealed class WordScannerTests
{
    [Theory]
    [InlineData("Hello, world!", "Hello|,| world|!")]
    [InlineData("I'm we'LL 'ſ'd x'reads", "I|'m| we|'LL| '|ſ|'d| x|'re|ads")]
    [InlineData("'ſa", "'ſ|a")]
    [InlineData("'s'", "'s|'")]
    [InlineData("'x 'l ''ll", "'x| '|l| ''|ll")]
    [InlineData("12 345", "1|2| |3|4|5")]
    [InlineData("a1b", "a|1|b")]
    [InlineData("a  b", "a| | b")]
    [InlineData("a  ", "a|  ")]
    [InlineData("a   1", "a|  | |1")]
    [InlineData(" \n \n x", " \n \n| x")]
    [InlineData("  \r\n\t\tx", "  \r\n|\t|\tx")]
    [InlineData("!\n\n x", "!\n\n| x")]
    [InlineData(" !!a", " !!|a")]
    [InlineData("\tword \u00A0word\u3000!", "\tword| |\u00A0word|\u3000|!")]
    [InlineData("\u0085\u2028x", "\u0085|\u2028x")]
    [InlineData("\u200B\uFEFF\u00A0", "\u200B\uFEFF|\u00A0")]
    [InlineData("e\u0301a", "e|\u0301a")]
    [InlineData("𐌰𐌱 𠀀漢 𝒜b", "𐌰𐌱| 𠀀漢| 𝒜b")]
    [InlineData("🤖a🤖🤖1 🤖!", "🤖a|🤖🤖|1| 🤖!")]
    [InlineData("𝟘𝟙x", "𝟘|𝟙|x")]
    [InlineData("Ⅷ½٣", "Ⅷ|½|٣")]
    [InlineData("हिन्दी", "ह|िन|्द|ी")]
    [InlineData("\u001C\u0000a", "\u001C\u0000|a")]
    [InlineData("ʰǅª", "ʰǅª")]
    public void Text_is_cut_as_the_pattern_cuts_it(string text, string words) => Assert.Equal(words.Split('|'), Words(text));

    [Fact]
    public void Words_cover_the_text_without_a_gap()
    {
        var random = new Random(3);
        const string Alphabet = "aZ1 \t\n\r'sSlLeEvVrRtTmMdD!-漢é\u0301\u00A0🤖𐌰";
        for (int round = 0; round < 2000; round++)
        {
            string text = string.Concat(Enumerable.Range(0, random.Next(20)).Select(_ => Alphabet[random.Next(Alphabet.Length)]));
            Assert.Equal(text, string.Concat(Words(text)));
        }
    }

    private static List<string> Words(string text)
    {
        var words = new List<string>();
        var scanner = new WordScanner(text);
        while (scanner.MoveNext())
        {
            words.Add(text[scanner.Start..scanner.End]);
        }

        return words;
    }
}
