using System.Buffers;
using System.IO.Compression;
using System.Text;

namespace Trainer.Worker.Data;

/// <summary>
/// The lines of a JSONL file, plain or gzipped, as UTF-8; blank lines are skipped. One pooled buffer holds the current line,
/// whatever the size of the file.
/// </summary>
public sealed class JsonlReader : IDisposable
{
    private const int LongestLine = 1 << 30;

    private readonly string _path;
    private readonly Stream _stream;
    private byte[] _buffer = ArrayPool<byte>.Shared.Rent(1 << 16);

    /// <summary>What was read and not yet returned is <c>_buffer[_start.._end]</c>.</summary>
    private int _start;
    private int _end;

    private JsonlReader(string path, Stream stream)
    {
        _path = path;
        _stream = stream;
    }

    /// <summary>From 1; blank lines count.</summary>
    public int LineNumber { get; private set; }

    /// <summary>Without its line end; valid until the next <see cref="MoveNext"/>.</summary>
    public ReadOnlyMemory<byte> Line { get; private set; }

    /// <exception cref="JobInputException">The file cannot be opened.</exception>
    public static JsonlReader Open(string path)
    {
        try
        {
            var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 16, FileOptions.SequentialScan);
            Span<byte> beginning = stackalloc byte[6];
            beginning = beginning[..file.ReadAtLeast(beginning, beginning.Length, throwOnEndOfStream: false)];
            file.Position = 0;
            bool gzip = beginning.StartsWith((ReadOnlySpan<byte>)[0x1F, 0x8B]);
            if (!gzip && OtherFormat(path, beginning) is { } problem)
            {
                file.Dispose();
                throw new JobInputException($"{path}: {problem}");
            }

            // Without it .NET takes the end of a cut-off file for the end of its data. Read once, by the first stream.
            AppContext.SetSwitch("System.IO.Compression.UseStrictValidation", true);
            return new JsonlReader(path, gzip ? new GZipStream(file, CompressionMode.Decompress) : file);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new JobInputException($"{path}: no such file; correct the dataset's path", e);
        }
        catch (UnauthorizedAccessException e)
        {
            throw new JobInputException(Directory.Exists(path)
                ? $"{path}: is a directory; name a JSONL file in it"
                : $"{path}: cannot be read; give this user the right to read it", e);
        }
    }

    /// <exception cref="JobInputException">The file is damaged or no text.</exception>
    public bool MoveNext()
    {
        while (NextLine())
        {
            LineNumber++;
            if (LineNumber == 1)
            {
                RequireText();
                SkipByteOrderMark();
            }

            if (Line.Span.ContainsAnyExcept(" \t\r"u8))
            {
                return true;
            }
        }

        return false;
    }

    public void Dispose()
    {
        _stream.Dispose();
        ArrayPool<byte>.Shared.Return(_buffer);
        _buffer = [];
    }

    /// <summary>Why a file that begins so holds no lines of JSON, and the cure; null: it may.</summary>
    private static string? OtherFormat(string path, ReadOnlySpan<byte> beginning)
    {
        return beginning.StartsWith("PAR1"u8)
                ? "is a Parquet file; write JSON Lines instead, for instance with pandas: read_parquet(file).to_json(\"train.jsonl\", orient=\"records\", lines=True)"
            : beginning.StartsWith("ARROW1"u8) || beginning.StartsWith((ReadOnlySpan<byte>)[0xFF, 0xFF, 0xFF, 0xFF]) ? "is an Arrow file; write JSON Lines instead, for instance with datasets: to_json(\"train.jsonl\")"
            : beginning.StartsWith((ReadOnlySpan<byte>)[0x28, 0xB5, 0x2F, 0xFD]) ? "is compressed by Zstandard; decompress it, or compress it with gzip"
            : beginning.StartsWith((ReadOnlySpan<byte>)[0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00]) ? "is compressed by xz; decompress it, or compress it with gzip"
            : beginning.StartsWith((ReadOnlySpan<byte>)[0x04, 0x22, 0x4D, 0x18]) ? "is compressed by lz4; decompress it, or compress it with gzip"
            : beginning.StartsWith("<"u8) ? "is HTML or XML: perhaps an error page was saved instead of the file; download it again"
            : beginning.StartsWith("BZh"u8) ? "is compressed by bzip2; decompress it, or compress it with gzip"
            : beginning.StartsWith("versio"u8) ? "is a Git LFS pointer, not the file itself; fetch that (git lfs pull)"
            : beginning.StartsWith("PK\x3\x4"u8) ? "is a zip archive; unpack it and name a file of it"
            : path.EndsWith(".gz", StringComparison.OrdinalIgnoreCase) && beginning is [not ((byte)'{' or (byte)'[' or (byte)' ' or (byte)'\t' or (byte)'\r' or (byte)'\n' or 0xEF), ..]
                ? "is not compressed by gzip, as its name says, and is no JSON; compress or download the file again"
            : null;
    }

    private bool NextLine()
    {
        int searched = _start;
        while (true)
        {
            int newline = _buffer.AsSpan(searched, _end - searched).IndexOf((byte)'\n');
            if (newline >= 0)
            {
                int end = searched + newline;
                Line = _buffer.AsMemory(_start, end - _start);
                _start = end + 1;
                return true;
            }

            int unread = _end - _start;
            if (!Fill())
            {
                Line = _buffer.AsMemory(_start, unread);
                _start = _end;
                return unread > 0;
            }

            searched = _start + unread;
        }
    }

    /// <summary>Reads more; false at the end of the file.</summary>
    private bool Fill()
    {
        if (_start > 0)
        {
            _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
            _end -= _start;
            _start = 0;
        }

        if (_end == _buffer.Length)
        {
            Grow();
        }

        try
        {
            int read = _stream.Read(_buffer, _end, _buffer.Length - _end);
            _end += read;
            return read > 0;
        }
        catch (InvalidDataException e)
        {
            throw new JobInputException("the gzip data is damaged or cut off; compress or download the file again", e)
                .At(_path, LineNumber + 1);
        }
    }

    private void Grow()
    {
        if (_buffer.Length >= LongestLine)
        {
            throw new JobInputException("the line is longer than 1 GiB; write one JSON object per line").At(_path, LineNumber + 1);
        }

        byte[] larger = ArrayPool<byte>.Shared.Rent(_buffer.Length * 2);
        _buffer.AsSpan(0, _end).CopyTo(larger);
        ArrayPool<byte>.Shared.Return(_buffer);
        _buffer = larger;
    }

    /// <summary>What was compressed may be of another format, too.</summary>
    private void RequireText()
    {
        if (_stream is GZipStream && (Line.Span.StartsWith((ReadOnlySpan<byte>)[0x1F, 0x8B]) ? "is compressed by gzip again" : OtherFormat("", Line.Span)) is { } problem)
        {
            throw new JobInputException($"{_path}: what is compressed in it {problem}");
        }
    }

    private void SkipByteOrderMark()
    {
        if (Line.Span.StartsWith(Encoding.UTF8.Preamble))
        {
            Line = Line[Encoding.UTF8.Preamble.Length..];
        }
        else if (Line.Span.StartsWith(Encoding.Unicode.Preamble) || Line.Span.StartsWith(Encoding.BigEndianUnicode.Preamble))
        {
            throw new JobInputException("the file is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)").At(_path, 1);
        }
    }
}
