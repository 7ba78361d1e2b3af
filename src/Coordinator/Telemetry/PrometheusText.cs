using System.Buffers;
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
        if (family.Help.Length > 0)
        {
            Text($"# HELP {name} ");
            Escaped(family.Help, quotes: openMetrics);
            Text("\n");
        }
        Text($"# TYPE {name} {family.Type}\n");
    }

    /// <param name="suffix">What the sample's name has after the family's.</param>
    /// <param name="labels">By their names of the instrument.</param>
    /// <param name="bound">Upper bound of a bucket.</param>
    public void Sample(string name, string suffix, ReadOnlySpan<KeyValuePair<string, object?>> labels, double value, double? bound = null)
    {
        Text(name);
        Text(suffix);
        if (labels.Length > 0 || bound is not null)
        {
            Text("{");
            bool first = true;
            foreach ((string key, object? label) in labels)
            {
                Text(first ? "" : ",");
                Text(Plain(key));
                Text("=\"");
                Escaped(Convert.ToString(label, CultureInfo.InvariantCulture) ?? "", quotes: true);
                Text("\"");
                first = false;
            }
            if (bound is { } limit)
            {
                Text(first ? "le=\"" : ",le=\"");
                Number(limit);
                Text(openMetrics && double.IsInteger(limit) && Math.Abs(limit) < 1e15 ? ".0\"" : "\"");
            }
            Text("}");
        }
        Text(" ");
        Number(value);
        Text("\n");
    }

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

    private void Number(double value)
    {
        if (double.IsFinite(value))
        {
            value.TryFormat(output.GetSpan(32), out int written, provider: CultureInfo.InvariantCulture);
            output.Advance(written);
        }
        else
        {
            Text(double.IsNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf");
        }
    }

    private void Escaped(string text, bool quotes)
    {
        if (text.AsSpan().IndexOfAny('\\', '\n', '"') >= 0)
        {
            text = text.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);
            text = quotes ? text.Replace("\"", "\\\"", StringComparison.Ordinal) : text;
        }
        Text(text);
    }

    private void Text(string text) => output.Advance(Encoding.UTF8.GetBytes(text, output.GetSpan(Encoding.UTF8.GetMaxByteCount(text.Length))));
}
