namespace Trainer.Contracts;

/// <summary>
/// Text that somebody else wrote, fit for a terminal: what would steer the terminal or turn the order of letters is U+FFFD instead.
/// </summary>
public static class PlainText
{
    private const int Long = 80;

    /// <summary>On one line: its line ends and tabs are spaces.</summary>
    public static string OneLine(string text) => Clean(text, keepLines: false);

    /// <summary>With its lines and tabs.</summary>
    public static string Lines(string text) => Clean(text, keepLines: true);

    /// <summary>On one line, in quotes, and cut when it is long.</summary>
    public static string Quote(string? text) => $"\"{Cut(text ?? "")}\"";

    /// <summary>On one line, and cut when it is long.</summary>
    public static string Cut(string text) =>
        text.Length <= Long ? OneLine(text) : $"{OneLine(text[..(char.IsHighSurrogate(text[Long - 1]) ? Long - 1 : Long)])}…";

    private static string Clean(string text, bool keepLines)
    {
        return string.Create(text.Length, text, (letters, from) =>
        {
            for (int i = 0; i < letters.Length; i++)
            {
                letters[i] = from[i] switch
                {
                    '\n' or '\r' or '\t' => keepLines ? from[i] : ' ',
                    // Marks, embeddings, overrides and isolates of bidirectional text.
                    '\u061C' or '\u200E' or '\u200F' or (>= '\u202A' and <= '\u202E') or (>= '\u2066' and <= '\u2069') => '\uFFFD',
                    var letter => char.IsControl(letter) ? '\uFFFD' : letter,
                };
            }
        });
    }
}
