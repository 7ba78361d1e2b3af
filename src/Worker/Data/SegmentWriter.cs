using System.Text;

namespace Trainer.Worker.Data;

/// <summary>Collects rendered text; neighbours of one fate become one segment.</summary>
internal sealed class SegmentWriter(bool specialTokensInContent)
{
    private readonly List<Segment> _segments = [];
    private readonly StringBuilder _text = new();
    private Segment _fate = new("", Trained: false);

    /// <summary>Whether what follows is trained.</summary>
    public bool Trained { get; set; }

    public IReadOnlyList<Segment> Segments
    {
        get
        {
            Close();
            return _segments;
        }
    }

    /// <summary>Text of the template itself.</summary>
    public void Frame(string text) => Add(new Segment(text, Trained));

    /// <summary>Text of a message.</summary>
    public void Content(string text) => Add(new Segment(text, Trained, specialTokensInContent));

    public void Add(Segment segment)
    {
        Segment fate = segment with { Text = "" };
        if (fate != _fate)
        {
            Close();
            _fate = fate;
        }

        _text.Append(segment.Text);
    }

    private void Close()
    {
        if (_text.Length > 0)
        {
            _segments.Add(_fate with { Text = _text.ToString() });
            _text.Clear();
        }
    }
}
