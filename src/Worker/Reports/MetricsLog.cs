using System.Text.Json;
using System.Text.Json.Serialization;

namespace Trainer.Worker.Reports;

/// <summary>
/// metrics.jsonl: one JSON object a reported step, appended and handed to the operating system at once, so that a killed
/// process loses nothing. Numbers are written so that they read back to the same bits.
/// </summary>
public sealed class MetricsLog : IDisposable
{
    private readonly FileStream _file;

    private MetricsLog(FileStream file) => _file = file;

    /// <summary>Opens or creates the file to go on after <paramref name="step"/>: later lines and a torn last line are cut off.</summary>
    /// <exception cref="InvalidDataException">A line is not a record.</exception>
    public static MetricsLog Open(string path, long step)
    {
        if (Path.GetDirectoryName(path) is { Length: > 0 } directory)
        {
            Directory.CreateDirectory(directory);
        }

        FileStream file = new(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, bufferSize: 0);
        try
        {
            MetricsLog log = new(file);
            log.TruncateAfter(step);
            return log;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Every whole line, also while another process appends.</summary>
    /// <exception cref="InvalidDataException">A line is not a record.</exception>
    public static IReadOnlyList<MetricsRecord> Read(string path)
    {
        using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        return [.. ReadLines(file).Select(line => line.Record)];
    }

    public void Append(MetricsRecord record)
    {
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(record, MetricsJson.Default.MetricsRecord);
        _file.Write([.. json, (byte)'\n']);
    }

    /// <summary>Drops every line after <paramref name="step"/>; what is appended next follows it.</summary>
    public void TruncateAfter(long step)
    {
        _file.Position = 0;
        long end = 0;
        foreach ((MetricsRecord record, long lineEnd) in ReadLines(_file))
        {
            if (record.Step > step)
            {
                break;
            }

            end = lineEnd;
        }

        _file.SetLength(end);
        _file.Position = end;
    }

    public void Dispose() => _file.Dispose();

    // A last line without its line feed is torn: the process or the machine died while writing it.
    private static List<(MetricsRecord Record, long End)> ReadLines(FileStream file)
    {
        byte[] content = new byte[file.Length];
        file.ReadExactly(content);
        List<(MetricsRecord, long)> lines = [];
        int start = 0;
        while (content.AsSpan(start).IndexOf((byte)'\n') is >= 0 and int length)
        {
            lines.Add((Parse(content.AsSpan(start, length), $"{file.Name}:{lines.Count + 1}"), start + length + 1));
            start += length + 1;
        }

        return lines;
    }

    private static MetricsRecord Parse(ReadOnlySpan<byte> line, string place)
    {
        try
        {
            return JsonSerializer.Deserialize(line, MetricsJson.Default.MetricsRecord)
                ?? throw new InvalidDataException($"{place}: not a metrics record");
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"{place}: not a metrics record: {e.Message}", e);
        }
    }
}

/// <summary>What is reported of one optimizer step.</summary>
public sealed record MetricsRecord
{
    /// <summary>Optimizer steps done.</summary>
    public required long Step { get; init; }

    /// <summary>Mean over the trained tokens of the step.</summary>
    public required double Loss { get; init; }

    /// <summary>Mean over the held-out data, when evaluated at this step.</summary>
    public double? EvalLoss { get; init; }

    public required double LearningRate { get; init; }

    /// <summary>Global L2 norm before clipping.</summary>
    public required double GradNorm { get; init; }

    /// <summary>Tokens since the start of the training.</summary>
    public required long Tokens { get; init; }

    public required double TokensPerSecond { get; init; }

    /// <summary>Since the start of this attempt.</summary>
    public required double Seconds { get; init; }

    public required DateTimeOffset Time { get; init; }
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals)]
[JsonSerializable(typeof(MetricsRecord))]
internal sealed partial class MetricsJson : JsonSerializerContext;
