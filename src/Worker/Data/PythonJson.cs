using System.Globalization;
using System.Numerics;
using System.Text;
using System.Text.Json;

namespace Trainer.Worker.Data;

/// <summary>
/// JSON as Python's json.dumps(value, ensure_ascii=False) spells it after json.loads: what the tojson filter of a Hugging
/// Face chat template writes.
/// </summary>
internal static class PythonJson
{
    public static string Write(JsonElement value)
    {
        var text = new StringBuilder();
        Append(text, value);
        return text.ToString();
    }

    public static string Write(string value)
    {
        var text = new StringBuilder();
        AppendString(text, value);
        return text.ToString();
    }

    private static void Append(StringBuilder text, JsonElement value)
    {
        switch (value.ValueKind)
        {
            case JsonValueKind.Object:
                AppendObject(text, value);
                break;
            case JsonValueKind.Array:
                text.Append('[');
                string separator = "";
                foreach (JsonElement item in value.EnumerateArray())
                {
                    text.Append(separator);
                    Append(text, item);
                    separator = ", ";
                }

                text.Append(']');
                break;
            case JsonValueKind.String:
                AppendString(text, value.GetString()!);
                break;
            case JsonValueKind.Number:
                text.Append(Number(value.GetRawText()));
                break;
            default:
                text.Append(value.GetRawText());
                break;
        }
    }

    /// <summary>A key that is written twice keeps its first place and its last value, as in a Python dict.</summary>
    private static void AppendObject(StringBuilder text, JsonElement value)
    {
        var entries = new OrderedDictionary<string, JsonElement>();
        foreach (JsonProperty property in value.EnumerateObject())
        {
            entries[property.Name] = property.Value;
        }

        text.Append('{');
        string separator = "";
        foreach ((string name, JsonElement entry) in entries)
        {
            text.Append(separator);
            AppendString(text, name);
            text.Append(": ");
            Append(text, entry);
            separator = ", ";
        }

        text.Append('}');
    }

    private static void AppendString(StringBuilder text, string value)
    {
        text.Append('"');
        foreach (char c in value)
        {
            _ = c switch
            {
                '"' => text.Append("\\\""),
                '\\' => text.Append("\\\\"),
                '\n' => text.Append("\\n"),
                '\r' => text.Append("\\r"),
                '\t' => text.Append("\\t"),
                '\b' => text.Append("\\b"),
                '\f' => text.Append("\\f"),
                < ' ' => text.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:x4}"),
                _ => text.Append(c),
            };
        }

        text.Append('"');
    }

    private static string Number(string raw) => raw.AsSpan().ContainsAny(".eE")
        ? Float(double.Parse(raw, CultureInfo.InvariantCulture))
        : BigInteger.Parse(raw, CultureInfo.InvariantCulture).ToString(CultureInfo.InvariantCulture);

    /// <summary>Python's repr: the shortest digits that round-trip, with an exponent below 1e-4 and from 1e16 on.</summary>
    private static string Float(double value)
    {
        if (double.IsInfinity(value))
        {
            return value > 0 ? "Infinity" : "-Infinity";
        }

        string shortest = value.ToString("E16", CultureInfo.InvariantCulture);
        for (int digits = 0; digits < 17; digits++)
        {
            string candidate = value.ToString($"E{digits}", CultureInfo.InvariantCulture);
            if (double.Parse(candidate, CultureInfo.InvariantCulture) == value)
            {
                shortest = candidate;
                break;
            }
        }

        string sign = double.IsNegative(value) ? "-" : "";
        string[] parts = shortest.TrimStart('-').Split('E');
        string mantissa = parts[0].Replace(".", "", StringComparison.Ordinal);
        int exponent = int.Parse(parts[1], CultureInfo.InvariantCulture);
        if (exponent is < -4 or >= 16)
        {
            string fraction = mantissa.Length > 1 ? "." + mantissa[1..] : "";
            return $"{sign}{mantissa[0]}{fraction}e{(exponent < 0 ? '-' : '+')}{Math.Abs(exponent):00}";
        }

        return exponent < 0 ? $"{sign}0.{new string('0', -exponent - 1)}{mantissa}"
            : mantissa.Length <= exponent + 1 ? $"{sign}{mantissa.PadRight(exponent + 1, '0')}.0"
            : $"{sign}{mantissa[..(exponent + 1)]}.{mantissa[(exponent + 1)..]}";
    }
}
