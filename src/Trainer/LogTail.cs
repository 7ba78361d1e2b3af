using System.Text;

namespace Trainer.Cli;

/// <summary>Reads the lines that were added to a growing file; it need not exist yet.</summary>
internal sealed class LogTail(string path)
{
    private readonly StringBuilder _partial = new();
    private readonly Decoder _decoder = Encoding.UTF8.GetDecoder();
    private long _offset;

    /// <param name="atEnd">Nothing more will come: a last line without its end counts too.</param>
    public IEnumerable<string> NewLines(bool atEnd = false)
    {
        foreach (char letter in NewText())
        {
            if (letter == '\n')
            {
                yield return Take();
            }
            else
            {
                _partial.Append(letter);
            }
        }
        if (atEnd && _partial.Length > 0)
        {
            yield return Take();
        }
    }

    private string Take()
    {
        string line = _partial.ToString().TrimEnd('\r');
        _partial.Clear();
        return line;
    }

    private IEnumerable<char> NewText()
    {
        if (!File.Exists(path))
        {
            yield break;
        }
        using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        file.Position = _offset;
        byte[] bytes = new byte[1 << 16];
        char[] letters = new char[bytes.Length + 1];
        int read;
        while ((read = file.Read(bytes)) > 0)
        {
            _offset += read;
            int count = _decoder.GetChars(bytes.AsSpan(0, read), letters, flush: false);
            for (int i = 0; i < count; i++)
            {
                yield return letters[i];
            }
        }
    }
}
