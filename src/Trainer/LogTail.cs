using System.Diagnostics;
using System.Text;
using Trainer.Contracts;

namespace Trainer.Cli;

/// <summary>
/// Reads the lines that were added to what a rank writes; it need not exist yet. On this machine the file is read, so that
/// nothing is missed while no coordinator runs; elsewhere the coordinator is asked for what its agents have sent.
/// </summary>
internal sealed class LogTail
{
    private static readonly TimeSpan s_often = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_settling = TimeSpan.FromSeconds(3);

    private readonly RankName _rank;
    private readonly LogStream _stream;
    private readonly string? _path;
    private readonly StringBuilder _partial = new();
    private readonly Decoder _decoder = Encoding.UTF8.GetDecoder();
    private long _offset;
    private byte[]? _ahead;

    /// <param name="files">The job's folder on this machine; null when it is elsewhere.</param>
    /// <param name="ended">So has the job: a file that is not there does not come any more, but may be in the job's store. The coordinator is asked.</param>
    public LogTail(RankName rank, LogStream stream, JobFiles? files, bool ended = false)
    {
        _rank = rank;
        _stream = stream;
        _path = files is null ? null : stream switch
        {
            LogStream.Stdout => files.Attempt(rank.Attempt).StdoutOf(rank.Rank),
            LogStream.Stderr => files.Attempt(rank.Attempt).StderrOf(rank.Rank),
            LogStream.Stacks => files.Attempt(rank.Attempt).StacksOf(rank.Rank),
            LogStream.Metrics => files.Metrics,
            _ => files.Samples,
        };
        if (ended && !File.Exists(_path))
        {
            _path = null;
        }
    }

    /// <summary>Returns when there may be new lines, or after the time.</summary>
    /// <inheritdoc cref="NewLinesAsync"/>
    public async Task WaitAsync(CoordinatorClient client, TimeSpan atMost, CancellationToken cancellationToken)
    {
        if (_path is null)
        {
            _ahead = await client.ReadLogAsync(_rank, _stream, _offset, atMost, cancellationToken);
            return;
        }
        long start = Stopwatch.GetTimestamp();
        while (Stopwatch.GetElapsedTime(start) < atMost && !(new FileInfo(_path) is { Exists: true } file && file.Length > _offset))
        {
            await Task.Delay(s_often, cancellationToken);
        }
    }

    /// <param name="client">Asked when the job's files are elsewhere.</param>
    /// <param name="atEnd">The rank has ended: a last line without its end counts too, and from elsewhere the last bytes may still be on their way.</param>
    public async Task<IReadOnlyList<string>> NewLinesAsync(CoordinatorClient client, bool atEnd, CancellationToken cancellationToken)
    {
        var lines = new List<string>();
        try
        {
            while (await ReadAsync(client, atEnd ? s_settling : TimeSpan.Zero, cancellationToken) is { Length: > 0 } bytes)
            {
                Append(bytes, lines);
            }
        }
        catch (CoordinatorException) when (lines.Count > 0)
        {
            // These are shown; the next call tells of it again.
            return lines;
        }
        if (atEnd && _partial.Length > 0)
        {
            lines.Add(Take());
        }
        return lines;
    }

    private void Append(byte[] bytes, List<string> lines)
    {
        _offset += bytes.Length;
        char[] letters = new char[bytes.Length + 1];
        int count = _decoder.GetChars(bytes, letters, flush: false);
        foreach (char letter in letters.AsSpan(0, count))
        {
            if (letter == '\n')
            {
                lines.Add(Take());
            }
            else
            {
                _partial.Append(letter);
            }
        }
    }

    private string Take()
    {
        string line = _partial.ToString().TrimEnd('\r');
        _partial.Clear();
        return line;
    }

    private async Task<byte[]> ReadAsync(CoordinatorClient client, TimeSpan wait, CancellationToken cancellationToken)
    {
        if (_path is null)
        {
            byte[]? ahead = _ahead;
            _ahead = null;
            return ahead is { Length: > 0 } ? ahead : await client.ReadLogAsync(_rank, _stream, _offset, wait, cancellationToken);
        }
        if (!File.Exists(_path))
        {
            return [];
        }
        await using var file = new FileStream(_path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        file.Position = _offset;
        byte[] bytes = new byte[Math.Clamp(file.Length - _offset, 0, LogLength.MaxPiece)];
        int read = await file.ReadAtLeastAsync(bytes, bytes.Length, throwOnEndOfStream: false, cancellationToken);
        return bytes[..read];
    }
}
