using System.Reflection;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Trainer.Contracts;

/// <summary>How names of the code are spelt in YAML and JSON: snake_case, unless the member says otherwise.</summary>
public static class Spelling
{
    /// <summary>No name is so long; the effort of a comparison grows with the length.</summary>
    private const int Longest = 200;

    public static string Key(string member) => JsonNamingPolicy.SnakeCaseLower.ConvertName(member);

    public static string Of<T>(T value) where T : struct, Enum => OfMember(typeof(T), value.ToString());

    /// <summary>Every value as <see cref="Of"/> spells it.</summary>
    public static IEnumerable<(string Text, T Value)> Values<T>() where T : struct, Enum => Values(typeof(T)).Select(value => (value.Text, (T)value.Value));

    internal static IEnumerable<(string Text, object Value)> Values(Type type) =>
        Enum.GetNames(type).Select(name => (OfMember(type, name), Enum.Parse(type, name)));

    /// <summary>The candidate that a person most likely meant, or null when none is near.</summary>
    public static string? Nearest(string given, IEnumerable<string> candidates)
    {
        if (given.Length > Longest)
        {
            return null;
        }
        (string Text, int Distance) best = candidates
            .Select(candidate => (candidate, Distance(Flat(given), Flat(candidate))))
            .DefaultIfEmpty(("", int.MaxValue))
            .MinBy(pair => pair.Item2);
        return best.Distance <= Math.Max(1, Math.Min(given.Length, best.Text.Length) / 3) ? best.Text : null;
    }

    private static string Flat(string text) =>
        text.Replace("_", "", StringComparison.Ordinal).Replace("-", "", StringComparison.Ordinal).ToUpperInvariant();

    /// <summary>Insertions, deletions, replacements and swaps of neighbours that turn one text into the other.</summary>
    private static int Distance(string a, string b)
    {
        int[,] cost = new int[a.Length + 1, b.Length + 1];
        for (int i = 0; i <= a.Length; i++)
        {
            for (int j = 0; j <= b.Length; j++)
            {
                if (i == 0 || j == 0)
                {
                    cost[i, j] = i + j;
                    continue;
                }
                cost[i, j] = Math.Min(
                    Math.Min(cost[i - 1, j] + 1, cost[i, j - 1] + 1),
                    cost[i - 1, j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1));
                if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                {
                    cost[i, j] = Math.Min(cost[i, j], cost[i - 2, j - 2] + 1);
                }
            }
        }
        return cost[a.Length, b.Length];
    }

    private static string OfMember(Type type, string name) =>
        type.GetField(name)?.GetCustomAttribute<JsonStringEnumMemberNameAttribute>()?.Name ?? Key(name);
}

/// <summary>Writes enums as <see cref="Spelling"/> does and refuses numbers.</summary>
internal sealed class SpelledEnumConverter : JsonConverterFactory
{
    public override bool CanConvert(Type typeToConvert) => typeToConvert.IsEnum;

    public override JsonConverter CreateConverter(Type typeToConvert, JsonSerializerOptions options) =>
        ((JsonConverterFactory)Activator.CreateInstance(
            typeof(JsonStringEnumConverter<>).MakeGenericType(typeToConvert), JsonNamingPolicy.SnakeCaseLower, false)!)
        .CreateConverter(typeToConvert, options)!;
}
