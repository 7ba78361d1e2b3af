using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;

namespace Trainer.Worker.Reports;

/// <summary>Something that was reported at a step.</summary>
public abstract record StepRecord
{
    /// <summary>Optimizer steps done.</summary>
    [JsonPropertyOrder(-1)]
    public required long Step { get; init; }
}

/// <summary>Opens the files of a job that grow by step.</summary>
public static class StepLog
{
    /// <inheritdoc cref="Open"/>
    public static StepLog<MetricsRecord> Metrics(string path, long step) => Open(path, ReportsJson.Default.MetricsRecord, step);

    /// <inheritdoc cref="Open"/>
    public static StepLog<SampleRecord> Samples(string path, long step) => Open(path, ReportsJson.Default.SampleRecord, step);

    /// <summary>Every whole line of metrics.jsonl, also while another process appends.</summary>
    /// <exception cref="InvalidDataException">A line is not a record.</exception>
    public static IReadOnlyList<MetricsRecord> ReadMetrics(string path)
    {
        using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        return [.. StepLog<MetricsRecord>.ReadLines(file, ReportsJson.Default.MetricsRecord).Select(line => line.Record)];
    }

    /// <summary>
    /// A coordinator that shares this folder points a job's files to those of an attempt elsewhere: whoever writes here first takes a
    /// copy, and that attempt's stay as they are.
    /// </summary>
    public static void Own(string path)
    {
        var file = new FileInfo(path);
        if (file.LinkTarget is null)
        {
            return;
        }

        if (file.ResolveLinkTarget(returnFinalTarget: true) is { Exists: true } there)
        {
            string copy = path + ".own";
            File.Copy(there.FullName, copy, overwrite: true);
            File.Move(copy, path, overwrite: true);
        }
        else
        {
            file.Delete();
        }
    }

    /// <summary>Opens or creates the file to go on after <paramref name="step"/>: later lines and a torn last line are cut off.</summary>
    /// <exception cref="InvalidDataException">A line is not a record.</exception>
    private static StepLog<T> Open<T>(string path, JsonTypeInfo<T> type, long step)
        where T : StepRecord
    {
        if (Path.GetDirectoryName(path) is { Length: > 0 } directory)
        {
            Directory.CreateDirectory(directory);
        }

        Own(path);
        FileStream file = new(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, bufferSize: 0);
        try
        {
            StepLog<T> log = new(file, type);
            log.TruncateAfter(step);
            return log;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }
}

/// <summary>
/// A file of one JSON object a line in the order of their steps, appended and handed to the operating system at once, so that
/// a killed process loses nothing; lines that a full disk does not take wait. Numbers are written so that they read back to the
/// same bits.
/// </summary>
public sealed class StepLog<T> : IDisposable
    where T : StepRecord
{
    private readonly FileStream _file;
    private readonly SpoolFile _end;
    private readonly JsonTypeInfo<T> _type;

    internal StepLog(FileStream file, JsonTypeInfo<T> type)
    {
        _file = file;
        _end = new SpoolFile(file.SafeFileHandle);
        _type = type;
    }

    /// <inheritdoc cref="SpoolFile.Problem"/>
    public string? Problem => _end.Problem;

    /// <summary>The file with the lines that wait.</summary>
    public byte[] Content() => [.. File.ReadAllBytes(_file.Name), .. _end.Waiting];

    /// <inheritdoc cref="SpoolFile.Flush"/>
    public void Flush() => _end.Flush();

    public void Append(T record)
    {
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(record, _type);
        _end.Append([.. json, (byte)'\n']);
    }

    /// <summary>Drops every line after <paramref name="step"/>; what is appended next follows it.</summary>
    internal void TruncateAfter(long step)
    {
        _file.Position = 0;
        long end = 0;
        foreach ((T record, long lineEnd) in ReadLines(_file, _type))
        {
            if (record.Step > step)
            {
                break;
            }

            end = lineEnd;
        }

        _file.SetLength(end);
    }

    public void Dispose()
    {
        _end.Dispose();
        _file.Dispose();
    }

    // A last line without its line feed is torn: the process or the machine died while writing it.
    internal static List<(T Record, long End)> ReadLines(FileStream file, JsonTypeInfo<T> type)
    {
        byte[] content = new byte[file.Length];
        file.ReadExactly(content);
        List<(T, long)> lines = [];
        int start = 0;
        while (content.AsSpan(start).IndexOf((byte)'\n') is >= 0 and int length)
        {
            lines.Add((Parse(content.AsSpan(start, length), type, $"{file.Name}:{lines.Count + 1}"), start + length + 1));
            start += length + 1;
        }

        return lines;
    }

    private static T Parse(ReadOnlySpan<byte> line, JsonTypeInfo<T> type, string place)
    {
        try
        {
            return JsonSerializer.Deserialize(line, type)
                ?? throw new InvalidDataException($"{place}: not a record of this file");
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"{place}: not a record of this file: {e.Message}", e);
        }
    }
}
