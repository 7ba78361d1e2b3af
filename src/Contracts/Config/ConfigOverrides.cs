using System.Globalization;
using System.Text.RegularExpressions;

namespace Trainer.Contracts;

/// <summary>Puts <c>--set a.b[0].c=value</c> into the tree before it is checked, so that files and options obey one set of rules.</summary>
internal static partial class ConfigOverrides
{
    public static void Apply(ConfigMap root, IEnumerable<string> sets, List<string> problems)
    {
        foreach (string set in sets)
        {
            if (Apply(root, set) is { } problem)
            {
                problems.Add(problem);
            }
        }
    }

    private static string? Apply(ConfigMap root, string set)
    {
        int equals = set.IndexOf('=', StringComparison.Ordinal);
        string path = equals < 0 ? set : set[..equals];
        if (equals <= 0 || !Path().IsMatch(path))
        {
            return $"--set {PlainText.Cut(set)}: not of the form key=value, such as --set optimizer.learning_rate=2e-5 or --set data.train[0].limit=100";
        }
        ConfigNode value;
        try
        {
            value = ConfigYaml.ReadValue(set[(equals + 1)..], path);
        }
        catch (Exception error) when (ConfigYaml.IsParserFailure(error))
        {
            return $"--set {path}: the value is not valid YAML; quote it, such as --set '{path}=\"...\"'";
        }
        return Put(root, [.. Step().Matches(path).Select(match => match.Value)], value, path);
    }

    private static string? Put(ConfigNode node, ReadOnlySpan<string> steps, ConfigNode value, string path)
    {
        string step = steps[0];
        var origin = new ConfigOrigin("", 1, 1, path);
        if (step[0] == '[')
        {
            int index = int.Parse(step.AsSpan(1, step.Length - 2), CultureInfo.InvariantCulture);
            if (node is not ConfigList list || index >= list.Items.Count)
            {
                return $"--set {path}: there is no entry {step}; "
                    + (node is ConfigList { Items.Count: > 0 } some ? $"the last one is [{some.Items.Count - 1}]" : "set the whole list, such as --set key=[...]");
            }
            if (steps.Length > 1)
            {
                return Put(list.Items[index], steps[1..], value, path);
            }
            list.Items[index] = value;
            return null;
        }
        if (node is not ConfigMap map)
        {
            return $"--set {path}: {step} has no place here, because the value above it is not a mapping";
        }
        if (map.Find(step) is not { } entry)
        {
            entry = new ConfigEntry(step, origin, new ConfigMap(origin));
            map.Add(entry);
        }
        if (steps.Length == 1)
        {
            entry.Value = value;
            return null;
        }
        if (entry.Value is ConfigScalar { IsNull: true })
        {
            entry.Value = new ConfigMap(origin);
        }
        return Put(entry.Value, steps[1..], value, path);
    }

    [GeneratedRegex(@"^[A-Za-z0-9_-]+(\[\d{1,6}\])*(\.[A-Za-z0-9_-]+(\[\d{1,6}\])*)*$")]
    private static partial Regex Path();

    [GeneratedRegex(@"\[\d+\]|[A-Za-z0-9_-]+")]
    private static partial Regex Step();
}
