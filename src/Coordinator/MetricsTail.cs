using System.Text.Json;

namespace Trainer.Coordinator;

/// <summary>A line of metrics.jsonl.</summary>
/// <param name="Json">Without the line feed.</param>
internal sealed record MetricsLine(long Step, byte[] Json);

/// <summary>
/// The lines of a job's metrics.jsonl as it grows. A next attempt cuts the file, or puts another in its place, and writes some steps
/// again: each step is told once.
/// </summary>
internal sealed class MetricsTail(string path)
{
    private const int Chunk = 64 << 10;

    private byte[] _last = [];
    private long _step = -1;

    public string Path => path;

    /// <summary>Behind the last line that was read.</summary>
    public long Offset { get; private set; }

    /// <summary>The lines of steps after this one, from a file that may grow meanwhile.</summary>
    public static IEnumerable<MetricsLine> ReadAfter(string path, long step)
    {
        using FileStream? file = Open(path);
        foreach ((MetricsLine line, _) in Lines(file).Where(line => line.Line.Step > step))
        {
            yield return line;
        }
    }

    /// <summary>Passes over what is there, but for about its last bytes.</summary>
    public void Skip(long keep)
    {
        using FileStream? file = Open(path);
        if (file is null || file.Length <= keep)
        {
            return;
        }
        file.Position = file.Length - keep;
        while (file.ReadByte() is not -1 and not '\n')
        {
        }
        Offset = file.Position;
    }

    /// <summary>The lines that came since the last call.</summary>
    public IReadOnlyList<MetricsLine> Read()
    {
        using FileStream? file = Open(path);
        if (file is not null)
        {
            Offset = Continues(file) ? Offset : 0;
            file.Position = Offset;
        }
        var lines = new List<MetricsLine>();
        foreach ((MetricsLine line, int length) in Lines(file))
        {
            Offset += length;
            _last = line.Json;
            if (line.Step > _step)
            {
                _step = line.Step;
                lines.Add(line);
            }
        }
        return lines;
    }

    /// <summary>What was read last still stands where it stood.</summary>
    private bool Continues(FileStream file)
    {
        if (file.Length < Offset)
        {
            return false;
        }
        byte[] there = new byte[_last.Length];
        file.Position = Math.Max(0, Offset - _last.Length - 1);
        return _last.Length == 0 || (file.ReadAtLeast(there, there.Length, throwOnEndOfStream: false) == there.Length && there.AsSpan().SequenceEqual(_last));
    }

    private static FileStream? Open(string path)
    {
        try
        {
            return new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);
        }
        catch (Exception error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
    }

    /// <summary>
    /// Records from where the file stands, with how far each takes it. What is no record is passed over when other lines follow it; the
    /// last one may be being written.
    /// </summary>
    private static IEnumerable<(MetricsLine Line, int Length)> Lines(FileStream? file)
    {
        byte[] bytes = new byte[Chunk];
        int count = 0;
        while (file is not null)
        {
            if (count == bytes.Length)
            {
                Array.Resize(ref bytes, bytes.Length * 2);
            }
            int read = file.Read(bytes, count, bytes.Length - count);
            if (read == 0)
            {
                yield break;
            }
            count += read;
            int start = 0, told = 0;
            while (Array.IndexOf(bytes, (byte)'\n', start, count - start) is >= 0 and int end)
            {
                byte[] json = bytes[start..end];
                start = end + 1;
                if (StepOf(json) is { } step)
                {
                    yield return (new MetricsLine(step, json), start - told);
                    told = start;
                }
            }
            Array.Copy(bytes, told, bytes, 0, count - told);
            count -= told;
        }
    }

    private static long? StepOf(byte[] json)
    {
        try
        {
            using JsonDocument line = JsonDocument.Parse(json);
            return line.RootElement.ValueKind is JsonValueKind.Object && line.RootElement.TryGetProperty("step", out JsonElement step)
                && step.ValueKind is JsonValueKind.Number && step.TryGetInt64(out long number) ? number : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
