using System.Buffers;
using System.Collections.Concurrent;
using System.Globalization;
using System.Text;

namespace Trainer.Coordinator.Telemetry;

/// <summary>Writes Prometheus' text exposition format 0.0.4, or OpenMetrics 1.0.0, which differ in little.</summary>
internal sealed class PrometheusText(IBufferWriter<byte> output, bool openMetrics)
{
    public const string ContentType = "text/plain; version=0.0.4; charset=utf-8";
    public const string OpenMetricsContentType = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    private static readonly Dictionary<string, string> s_units = new(StringComparer.Ordinal)
    {
        ["s"] = "seconds", ["ms"] = "milliseconds", ["By"] = "bytes", ["1"] = "ratio", ["%"] = "percent",
    };

    private static readonly ConcurrentDictionary<string, string> s_labels = new(StringComparer.Ordinal);

    /// <summary>"trainer.queue.wait" in seconds is trainer_queue_wait_seconds; a counter's name has its "_total" in samples only.</summary>
    public static string NameOf(string instrument, string? unit, bool counter)
    {
        string name = Plain(instrument);
        if (unit is not null && s_units.TryGetValue(unit, out string? suffix) && !name.EndsWith(suffix, StringComparison.Ordinal))
        {
            name = $"{name}_{suffix}";
        }
        return counter && name.EndsWith("_total", StringComparison.Ordinal) ? name[..^"_total".Length] : name;
    }

    public void Begin(MetricFamily family)
    {
        // OpenMetrics names the family, the older format its samples.
        string name = family.Type == "counter" && !openMetrics ? family.Name + "_total" : family.Name;
        Text($"# HELP {name} ");
        Text(Escaped(family.Help, quotes: openMetrics));
        Text("\n");
        Text($"# TYPE {name} {family.Type}\n");
    }

    /// <param name="suffix">What the sample's name has after the family's.</param>
    /// <param name="labels">By their names of the instrument.</param>
    /// <param name="bound">Upper bound of a bucket.</param>
    public void Sample(string name, string suffix, ReadOnlySpan<KeyValuePair<string, object?>> labels, double value, double? bound = null)
    {
        int most = name.Length + suffix.Length + 64;
        foreach ((string key, object? label) in labels)
        {
            most += (3 * key.Length) + (6 * (LabelOf(label).Length + 1)) + 4;
        }
        Span<byte> line = output.GetSpan(most);
        int at = Encoding.UTF8.GetBytes(name, line);
        at += Encoding.UTF8.GetBytes(suffix, line[at..]);
        if (labels.Length > 0 || bound is not null)
        {
            line[at++] = (byte)'{';
            foreach ((string key, object? label) in labels)
            {
                at += Encoding.UTF8.GetBytes(s_labels.GetOrAdd(key, Plain), line[at..]);
                "=\""u8.CopyTo(line[at..]);
                at += Encoding.UTF8.GetBytes(Escaped(LabelOf(label), quotes: true), line[(at + 2)..]) + 2;
                "\","u8.CopyTo(line[at..]);
                at += 2;
            }
            if (bound is { } limit)
            {
                "le=\""u8.CopyTo(line[at..]);
                at = Number(limit, line, at + 4);
                ReadOnlySpan<byte> end = openMetrics && double.IsInteger(limit) && Math.Abs(limit) < 1e15 ? ".0\""u8 : "\""u8;
                end.CopyTo(line[at..]);
                at += end.Length;
            }
            else
            {
                at--;
            }
            line[at++] = (byte)'}';
        }
        line[at++] = (byte)' ';
        at = Number(value, line, at);
        line[at++] = (byte)'\n';
        output.Advance(at);
    }

    /// <summary>Samples that are written already.</summary>
    public void Append(ReadOnlySpan<byte> samples) => output.Write(samples);

    public void End() => Text(openMetrics ? "# EOF\n" : "");

    /// <summary>With nothing but letters, digits and underscores.</summary>
    private static string Plain(string name)
    {
        if (name.All(letter => char.IsAsciiLetterOrDigit(letter) || letter == '_') && !char.IsAsciiDigit(name[0]))
        {
            return name;
        }
        string plain = string.Concat(name.Select(letter => char.IsAsciiLetterOrDigit(letter) ? letter : '_'));
        return char.IsAsciiDigit(plain[0]) ? "_" + plain : plain;
    }

    private static string LabelOf(object? label) => label as string ?? Convert.ToString(label, CultureInfo.InvariantCulture) ?? "";

    /// <returns>Where the line goes on.</returns>
    private static int Number(double value, Span<byte> line, int at)
    {
        int written;
        if (double.IsFinite(value))
        {
            value.TryFormat(line[at..], out written, provider: CultureInfo.InvariantCulture);
        }
        else
        {
            written = Encoding.UTF8.GetBytes(double.IsNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf", line[at..]);
        }
        return at + written;
    }

    private static string Escaped(string text, bool quotes)
    {
        if (text.AsSpan().IndexOfAny('\\', '\n', '"') < 0)
        {
            return text;
        }
        text = text.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);
        return quotes ? text.Replace("\"", "\\\"", StringComparison.Ordinal) : text;
    }

    private void Text(string text)
    {
        if (text.Length > 0)
        {
            output.Advance(Encoding.UTF8.GetBytes(text, output.GetSpan(Encoding.UTF8.GetMaxByteCount(text.Length))));
        }
    }
}
