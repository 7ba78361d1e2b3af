using System.Globalization;
using System.Text;

namespace Trainer.Worker.Data;

/// <summary>
/// Cuts text into the words that byte-pair merges may not cross, as Qwen's split pattern does:
/// <code>(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+</code>
/// Written by hand because .NET's Regex sees UTF-16 units, so that \p{L} misses every letter beyond the BMP.
/// </summary>
internal ref struct WordScanner(ReadOnlySpan<char> text)
{
    public const string Pattern =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    private static readonly Kind[] s_bmp = BasicPlane();

    private readonly ReadOnlySpan<char> _text = text;

    private enum Kind : byte { Other, Letter, Number, Space, Newline }

    /// <summary>The current word is <c>text[Start..End]</c>.</summary>
    public int Start { get; private set; }

    public int End { get; private set; }

    public bool MoveNext()
    {
        Start = End;
        if (Start == _text.Length)
        {
            return false;
        }

        End = EndOfWord(Start);
        return true;
    }

    private readonly int EndOfWord(int start)
    {
        char first = _text[start];
        if (first == '\'' && ContractionLength(start) is > 0 and var length)
        {
            return start + length;
        }

        Kind kind = KindAt(start, out int next);
        if (kind == Kind.Letter)
        {
            return EndOf(Kind.Letter, next);
        }

        if (kind == Kind.Number)
        {
            return next;
        }

        if (kind != Kind.Newline && next < _text.Length && KindAt(next, out int afterLetter) == Kind.Letter)
        {
            return EndOf(Kind.Letter, afterLetter);
        }

        int symbols = first == ' ' ? next : start;
        int endOfSymbols = EndOf(Kind.Other, symbols);
        return endOfSymbols > symbols ? EndOf(Kind.Newline, endOfSymbols) : EndOfSpace(start);
    }

    /// <summary>Length of 's, 't, 're, 've, 'm, 'll, 'd at <paramref name="start"/> in any case, or 0.</summary>
    private readonly int ContractionLength(int start)
    {
        char At(ReadOnlySpan<char> text, int index) => index < text.Length ? char.ToLowerInvariant(text[index]) : '\0';
        return (At(_text, start + 1), At(_text, start + 2)) switch
        {
            // U+017F, the long s, folds to s.
            ('s' or '\u017F' or 't' or 'm' or 'd', _) => 2,
            ('r' or 'v', 'e') or ('l', 'l') => 3,
            _ => 0,
        };
    }

    /// <summary>Through the last line break of a run of white space; without one, all but the space that leads the next word.</summary>
    private readonly int EndOfSpace(int start)
    {
        int end = start;
        int afterNewline = 0;
        while (end < _text.Length && s_bmp[_text[end]] is Kind.Space or Kind.Newline)
        {
            end++;
            if (s_bmp[_text[end - 1]] == Kind.Newline)
            {
                afterNewline = end;
            }
        }

        if (afterNewline > 0)
        {
            return afterNewline;
        }

        return end < _text.Length && end - start > 1 ? end - 1 : end;
    }

    private readonly int EndOf(Kind kind, int index)
    {
        while (index < _text.Length && KindAt(index, out int next) == kind)
        {
            index = next;
        }

        return index;
    }

    private readonly Kind KindAt(int index, out int next)
    {
        char unit = _text[index];
        if (!char.IsSurrogate(unit))
        {
            next = index + 1;
            return s_bmp[unit];
        }

        Rune.DecodeFromUtf16(_text[index..], out Rune rune, out int units);
        next = index + units;
        return KindOf(Rune.GetUnicodeCategory(rune));
    }

    private static Kind KindOf(UnicodeCategory category) => category switch
    {
        <= UnicodeCategory.OtherLetter => Kind.Letter,
        UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => Kind.Number,
        _ => Kind.Other,
    };

    private static Kind[] BasicPlane()
    {
        var kinds = new Kind[char.MaxValue + 1];
        for (int c = 0; c <= char.MaxValue; c++)
        {
            kinds[c] = c is '\r' or '\n' ? Kind.Newline
                : char.IsWhiteSpace((char)c) ? Kind.Space
                : KindOf(CharUnicodeInfo.GetUnicodeCategory((char)c));
        }

        return kinds;
    }
}
