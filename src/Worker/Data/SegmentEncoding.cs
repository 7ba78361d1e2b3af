using System.Text;

namespace Trainer.Worker.Data;

/// <summary>
/// One run of the tokenizer over segments: their text as one string, the piece of it (between added tokens) that is being
/// encoded, and the tokens so far, each with the fate of the segment in which it begins.
/// </summary>
internal sealed class SegmentEncoding
{
    private readonly IReadOnlyList<Segment> _segments;

    /// <summary>Where each segment ends in <see cref="Text"/>.</summary>
    private readonly int[] _ends;

    /// <summary>Where each segment ends in <see cref="Piece"/>; 0 for those before it.</summary>
    private readonly int[] _pieceEnds;
    private readonly List<int> _ids;
    private readonly List<bool> _trained;

    public SegmentEncoding(IReadOnlyList<Segment> segments)
    {
        _segments = segments;
        Text = WellFormed(segments.Count == 1 ? segments[0].Text : string.Concat(segments.Select(segment => segment.Text)));
        _ends = new int[segments.Count];
        _pieceEnds = new int[segments.Count];
        for (int i = 0, end = 0; i < segments.Count; i++)
        {
            _ends[i] = end += segments[i].Text.Length;
        }

        _ids = new List<int>((Text.Length / 3) + 1);
        _trained = new List<bool>(_ids.Capacity);
    }

    public string Text { get; }

    /// <summary>The piece entered last, normalised.</summary>
    public string Piece { get; private set; } = "";

    public Segment SegmentAt(int textIndex) => _segments[IndexOf(_ends, textIndex)];

    public Segment PieceSegmentAt(int pieceIndex) => _segments[IndexOf(_pieceEnds, pieceIndex)];

    public bool IsTrained(int textIndex) => SegmentAt(textIndex).Trained;

    public void Enter(int start, int end, bool nfc)
    {
        string raw = Text[start..end];
        Piece = nfc && !Ascii.IsValid(raw) ? raw.Normalize() : raw;
        for (int i = 0; i < _ends.Length; i++)
        {
            int border = Math.Clamp(_ends[i] - start, 0, raw.Length);
            _pieceEnds[i] = border == raw.Length ? Piece.Length
                : ReferenceEquals(Piece, raw) ? border
                : raw[..border].Normalize().Length;
        }
    }

    public void Add(int id, bool trained)
    {
        _ids.Add(id);
        _trained.Add(trained);
    }

    /// <summary>Adds the tokens of <c>Piece[start..end]</c>.</summary>
    public void AddWord(int start, int end, ReadOnlySpan<int> ids, Tokenizer tokenizer)
    {
        int segment = IndexOf(_pieceEnds, start);
        bool straddles = end > _pieceEnds[segment];
        for (int i = 0, bytes = 0; i < ids.Length; i++)
        {
            Add(ids[i], _segments[straddles ? SegmentOfByte(start, end, bytes) : segment].Trained);
            bytes += straddles ? tokenizer.Bytes(ids[i], skipSpecial: false).Length : 0;
        }
    }

    public TokenizedDocument ToDocument() => new([.. _ids], [.. _trained]);

    private int SegmentOfByte(int start, int end, int bytes)
    {
        int index = start;
        while (index < end && Encoding.UTF8.GetByteCount(Piece.AsSpan(start, index + 1 - start)) <= bytes)
        {
            index++;
        }

        return IndexOf(_pieceEnds, index);
    }

    private static int IndexOf(int[] ends, int index)
    {
        int found = Array.BinarySearch(ends, index + 1);
        found = found < 0 ? ~found : found;
        while (found > 0 && ends[found - 1] > index)
        {
            found--;
        }

        return Math.Min(found, ends.Length - 1);
    }

    /// <summary>A lone surrogate is no character; like every UTF-8 encoder, this makes it U+FFFD (one unit for one).</summary>
    private static string WellFormed(string text) =>
        text.AsSpan().ContainsAnyInRange('\uD800', '\uDFFF') ? Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text)) : text;
}
