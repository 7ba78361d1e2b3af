using Trainer.Contracts;

namespace Contracts.Tests;

public sealed class PlainTextTests
{
    [Fact]
    public void What_steers_a_terminal_or_turns_letters_is_replaced()
    {
        const string Hostile = "a\u001b[2J\u009b1m\u202Eb\u2066c\u007f\0";
        Assert.Equal("a\uFFFD[2J\uFFFD1m\uFFFDb\uFFFDc\uFFFD\uFFFD", PlainText.OneLine(Hostile));
        Assert.Equal(("é 🤖 b c", "é 🤖\nb\tc"), (PlainText.OneLine("é 🤖\nb\tc"), PlainText.Lines("é 🤖\nb\tc")));
    }

    [Fact]
    public void What_is_quoted_is_cut()
    {
        Assert.Equal("\"short\"", PlainText.Quote("short"));
        Assert.Equal($"\"{new string('x', 80)}…\"", PlainText.Quote(new string('x', 81)));
        // Never within a pair of surrogates.
        Assert.Equal($"{new string('x', 79)}…", PlainText.Cut(new string('x', 79) + "🤖!"));
    }
}
