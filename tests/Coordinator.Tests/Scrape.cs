using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace Coordinator.Tests;

/// <summary>Prometheus' text read back, by a reader of its own: families with their types, and samples by name and labels.</summary>
internal sealed partial class Scrape
{
    public Dictionary<string, string> Types { get; } = new(StringComparer.Ordinal);

    public List<(string Name, IReadOnlyDictionary<string, string> Labels, double Value)> Samples { get; } = [];

    public static Scrape Read(string text)
    {
        var scrape = new Scrape();
        Assert.EndsWith("\n", text, StringComparison.Ordinal);
        foreach (string line in text.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            if (line.StartsWith("# TYPE ", StringComparison.Ordinal))
            {
                string[] parts = line.Split(' ');
                scrape.Types.Add(parts[2], parts[3]);
            }
            else if (line[0] != '#')
            {
                Match sample = Line().Match(line);
                Assert.True(sample.Success, line);
                scrape.Samples.Add((sample.Groups["name"].Value, Labels(sample.Groups["labels"].Value),
                    sample.Groups["value"].Value is "+Inf" ? double.PositiveInfinity : double.Parse(sample.Groups["value"].Value, CultureInfo.InvariantCulture)));
            }
        }
        return scrape;
    }

    /// <summary>The only sample with these labels (and perhaps others); null when there is none.</summary>
    public double? Value(string name, params (string Key, string Value)[] labels)
    {
        var found = Samples.Where(sample => sample.Name == name && labels.All(label => sample.Labels.GetValueOrDefault(label.Key) == label.Value)).ToArray();
        Assert.True(found.Length <= 1, $"{name} has {found.Length} samples");
        return found.Length == 0 ? null : found[0].Value;
    }

    private static Dictionary<string, string> Labels(string text) => Label().Matches(text)
        .ToDictionary(label => label.Groups[1].Value, label => Unescape(label.Groups[2].Value), StringComparer.Ordinal);

    private static string Unescape(string text)
    {
        var plain = new StringBuilder();
        for (int i = 0; i < text.Length; i++)
        {
            plain.Append(text[i] != '\\' ? text[i] : text[++i] == 'n' ? '\n' : text[i]);
        }
        return plain.ToString();
    }

    [GeneratedRegex("""^(?<name>[a-zA-Z_][a-zA-Z0-9_]*)(\{(?<labels>([a-zA-Z_][a-zA-Z0-9_]*="(\\[\\"n]|[^\\"])*",?)*)\})? (?<value>\S+)$""")]
    private static partial Regex Line();

    [GeneratedRegex("""([a-zA-Z_][a-zA-Z0-9_]*)="((?:\\[\\"n]|[^\\"])*)""")]
    private static partial Regex Label();
}
