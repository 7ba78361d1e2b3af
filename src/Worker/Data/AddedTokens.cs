using System.Buffers;
using System.Globalization;
using System.Text;

namespace Trainer.Worker.Data;

/// <summary>
/// A token recognised as a whole. Special: a control token, left out by a decoder that skips those. StripLeft, StripRight:
/// takes neighbouring white space along. Normalized: sought after normalisation instead of before. SingleWord: recognised
/// only between characters that belong to no word.
/// </summary>
internal sealed record AddedToken(
    int Id, string Content, bool Special, bool StripLeft, bool StripRight, bool Normalized, bool SingleWord);

/// <summary>Finds added tokens in text: the leftmost first, of several at one place the longest, never overlapping.</summary>
internal sealed class AddedTokens
{
    private readonly SearchValues<char> _firstChars;
    private readonly Dictionary<char, AddedToken[]> _longestFirst;

    public AddedTokens(IEnumerable<AddedToken> tokens)
    {
        _longestFirst = tokens.GroupBy(token => token.Content[0])
            .ToDictionary(group => group.Key, group => group.OrderByDescending(token => token.Content.Length).ToArray());
        _firstChars = SearchValues.Create([.. _longestFirst.Keys]);
    }

    /// <summary>A token at <paramref name="At"/>; with the white space that it strips it covers Start..End.</summary>
    internal readonly record struct Match(AddedToken Token, int At, int Start, int End);

    /// <summary>
    /// The first token at or after <paramref name="from"/>, where the last match ended. A token that <paramref name="isAllowed"/>
    /// refuses at its place is ordinary text.
    /// </summary>
    public bool TryFind(ReadOnlySpan<char> text, int from, Func<AddedToken, int, bool> isAllowed, out Match match)
    {
        for (int at = from; NextCandidate(text, at) is >= 0 and var found; )
        {
            if (TokenAt(text, found) is not { } token)
            {
                at = found + 1;
                continue;
            }

            int end = found + token.Content.Length;
            if (isAllowed(token, found) && (!token.SingleWord || StandsAlone(text, found, end)))
            {
                int start = token.StripLeft ? Math.Max(from, text[..found].TrimEnd().Length) : found;
                end = token.StripRight ? text.Length - text[end..].TrimStart().Length : end;
                match = new Match(token, found, start, end);
                return true;
            }

            at = end;
        }

        match = default;
        return false;
    }

    private int NextCandidate(ReadOnlySpan<char> text, int from)
    {
        int offset = text[from..].IndexOfAny(_firstChars);
        return offset < 0 ? -1 : from + offset;
    }

    private AddedToken? TokenAt(ReadOnlySpan<char> text, int index)
    {
        foreach (AddedToken token in _longestFirst[text[index]])
        {
            if (text[index..].StartsWith(token.Content, StringComparison.Ordinal))
            {
                return token;
            }
        }

        return null;
    }

    private static bool StandsAlone(ReadOnlySpan<char> text, int start, int end)
    {
        Rune.DecodeLastFromUtf16(text[..start], out Rune before, out _);
        Rune.DecodeFromUtf16(text[end..], out Rune after, out _);
        return (start == 0 || !IsWordCharacter(before)) && (end == text.Length || !IsWordCharacter(after));
    }

    /// <summary>\w of a Unicode regular expression.</summary>
    private static bool IsWordCharacter(Rune rune) => Rune.GetUnicodeCategory(rune)
        is <= UnicodeCategory.EnclosingMark or UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber
        or UnicodeCategory.ConnectorPunctuation;
}
