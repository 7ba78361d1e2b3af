using System.ComponentModel.DataAnnotations;
using System.Globalization;
using System.Numerics;
using System.Reflection;
using System.Runtime.CompilerServices;

namespace Trainer.Contracts;

/// <summary>
/// Fills a record tree from nodes and collects every problem on the way. Keys are the property names in snake_case;
/// <c>required</c>, nullability and [Range] of the records are the rules, so that a record is its own documentation.
/// </summary>
internal sealed class ConfigBinder(List<string> problems)
{
    private readonly List<string> _problems = problems;
    private readonly NullabilityInfoContext _nullability = new();
    private readonly Dictionary<string, ConfigOrigin> _origins = [];
    private readonly HashSet<string> _bad = [];

    /// <summary>Where a key was written, or null when it was left out.</summary>
    public ConfigOrigin? OriginOf(string path) => _origins.GetValueOrDefault(path);

    /// <summary>True when none of the keys had a problem of its own, so that rules between them make sense.</summary>
    public bool AreGood(params ReadOnlySpan<string> paths)
    {
        foreach (string path in paths)
        {
            if (_bad.Contains(path))
            {
                return false;
            }
        }
        return true;
    }

    /// <summary>A property with a problem keeps its default.</summary>
    public object BindRecord(Type type, ConfigMap map, string path)
    {
        _origins[path] = map.Origin;
        object record = Activator.CreateInstance(type)!;
        Dictionary<string, PropertyInfo> properties = type
            .GetProperties(BindingFlags.Public | BindingFlags.Instance)
            .Where(property => property.CanWrite)
            .ToDictionary(property => Spelling.Key(property.Name));
        foreach (ConfigEntry entry in map.Entries)
        {
            string child = Join(path, entry.Key);
            if (!properties.TryGetValue(entry.Key, out PropertyInfo? property))
            {
                string cure = Spelling.Nearest(entry.Key, properties.Keys) is { } near
                    ? $"did you mean {near}?"
                    : $"the keys here are {string.Join(", ", properties.Keys)}";
                Fail(entry.Origin, child, $"unknown key; {cure}");
                continue;
            }
            _origins[child] = entry.Value.Origin;
            if (BindProperty(property, entry, child) is { } value)
            {
                property.SetValue(record, value);
            }
        }
        foreach ((string key, PropertyInfo property) in properties)
        {
            if (property.IsDefined(typeof(RequiredMemberAttribute)) && map.Find(key) is null)
            {
                Fail(map.Origin, Join(path, key), $"missing; add {Example(property.PropertyType, key)}");
            }
        }
        return record;
    }

    private object? BindProperty(PropertyInfo property, ConfigEntry entry, string path)
    {
        Type type = Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType;
        if (entry.Value is ConfigScalar { IsNull: true } scalar)
        {
            bool nullable = _nullability.Create(property).WriteState is NullabilityState.Nullable;
            bool isRecord = IsRecord(type);
            if (!nullable || (isRecord && scalar.Text.Length == 0))
            {
                Fail(scalar.Origin, path, isRecord
                    ? "no value; indent its keys below it, or write {} for the defaults"
                    : $"no value; give {Expected(type)}, or remove the key");
            }
            return null;
        }
        RangeAttribute? range = property.GetCustomAttribute<RangeAttribute>();
        if (range is not null && entry.Value is ConfigScalar { Quoted: false } given && IsBeyond(type, given.Text))
        {
            Fail(given.Origin, path, $"{given.Text} is out of range; give {Describe(range, saysMost: true)}");
            return null;
        }
        object? value = Bind(type, entry.Value, path);
        if (value is not null && range?.IsValid(value) == false)
        {
            Fail(entry.Value.Origin, path, $"{Show(value)} is out of range; give {Describe(range)}");
            return null;
        }
        return value;
    }

    private object? Bind(Type type, ConfigNode node, string path)
    {
        if (IsRecord(type))
        {
            return node is ConfigMap map ? BindRecord(type, map, path) : Mismatch(type, node, path);
        }
        if (type.IsGenericType && type.GetGenericTypeDefinition() == typeof(IReadOnlyList<>))
        {
            return node is ConfigList list ? BindList(type.GetGenericArguments()[0], list, path) : Mismatch(type, node, path);
        }
        if (type == typeof(IReadOnlyDictionary<string, string>))
        {
            return node is ConfigMap map ? BindTexts(map, path) : Mismatch(type, node, path);
        }
        return node is ConfigScalar scalar ? BindScalar(type, scalar, path) : Mismatch(type, node, path);
    }

    private Array BindList(Type element, ConfigList list, string path)
    {
        object[] items = [.. list.Items.Select((item, index) =>
        {
            string child = $"{path}[{index}]";
            _origins[child] = item.Origin;
            return item is ConfigScalar { IsNull: true } ? Mismatch(element, item, child) : Bind(element, item, child);
        }).OfType<object>()];
        Array array = Array.CreateInstance(element, items.Length);
        items.CopyTo(array, 0);
        return array;
    }

    private Dictionary<string, string> BindTexts(ConfigMap map, string path)
    {
        var texts = new Dictionary<string, string>();
        foreach (ConfigEntry entry in map.Entries)
        {
            if (entry.Value is ConfigScalar { IsNull: false } scalar)
            {
                texts[entry.Key] = scalar.Text;
            }
            else
            {
                Mismatch(typeof(string), entry.Value, Join(path, entry.Key));
            }
        }
        return texts;
    }

    private object? BindScalar(Type type, ConfigScalar scalar, string path)
    {
        if (type == typeof(string))
        {
            return scalar.Text;
        }
        if (type.IsEnum)
        {
            return BindEnum(type, scalar, path);
        }
        if (scalar.Quoted)
        {
            Fail(scalar.Origin, path, $"{PlainText.Quote(scalar.Text)} in quotes is text; give {Expected(type)}, without quotes");
            return null;
        }
        if (type == typeof(bool))
        {
            return scalar.Text switch { "true" => true, "false" => false, _ => Mismatch(type, scalar, path) };
        }
        if (type == typeof(int))
        {
            return int.TryParse(scalar.Text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int whole)
                ? whole : Mismatch(type, scalar, path);
        }
        return double.TryParse(scalar.Text, NumberStyles.Float, CultureInfo.InvariantCulture, out double number) && double.IsFinite(number)
            ? number : Mismatch(type, scalar, path);
    }

    private object? BindEnum(Type type, ConfigScalar scalar, string path)
    {
        (string Text, object Value)[] values = [.. Spelling.Values(type)];
        foreach ((string text, object value) in values)
        {
            if (text == scalar.Text)
            {
                return value;
            }
        }
        string cure = Spelling.Nearest(scalar.Text, values.Select(value => value.Text)) is { } near ? $"; did you mean {near}?" : "";
        Fail(scalar.Origin, path, $"{PlainText.Quote(scalar.Text)} is not one of {string.Join(", ", values.Select(value => value.Text))}{cure}");
        return null;
    }

    private object? Mismatch(Type type, ConfigNode node, string path)
    {
        string given = node switch
        {
            ConfigScalar { IsNull: true } => "nothing",
            ConfigScalar scalar => PlainText.Quote(scalar.Text),
            ConfigList => "a list",
            _ => "a mapping",
        };
        Fail(node.Origin, path, $"{given} was given; expected {Expected(type)}");
        return null;
    }

    private void Fail(ConfigOrigin origin, string path, string what)
    {
        _bad.Add(path);
        _problems.Add($"{origin.At(path)}: {what}");
    }

    /// <summary>An integer, or a number, that the type has no room for.</summary>
    private static bool IsBeyond(Type type, string text)
    {
        if (text.Length > 400)  // no mistake of a person's
        {
            return false;
        }
        return type == typeof(int) ? BigInteger.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out BigInteger whole) && (whole < int.MinValue || whole > int.MaxValue)
            : type == typeof(double) && double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double number) && double.IsInfinity(number) && text.Any(char.IsAsciiDigit);
    }

    private static bool IsRecord(Type type) => type is { IsClass: true, IsGenericType: false } && type != typeof(string);

    private static string Expected(Type type) => type switch
    {
        _ when type == typeof(string) => "text",
        _ when type == typeof(bool) => "true or false",
        _ when type == typeof(int) => "an integer such as 42",
        _ when type == typeof(double) => "a number such as 0.1 or 2e-5",
        { IsEnum: true } => $"one of {string.Join(", ", Spelling.Values(type).Select(value => value.Text))}",
        _ when type == typeof(IReadOnlyDictionary<string, string>) => "a mapping of names, such as {prompt: question}",
        _ when type == typeof(IReadOnlyList<DatasetConfig>) => "a list, such as [{path: train.jsonl}]",
        { IsGenericType: true } => "a list, such as [a, b]",
        _ => "a mapping with its keys indented below",
    };

    private static string Example(Type type, string key) => type switch
    {
        _ when type == typeof(ModelConfig) => $"\"{key}:\" with path (a snapshot), or config and tokenizer",
        _ when type == typeof(DataConfig) => $"\"{key}:\" with train, a list of files such as [{{path: train.jsonl}}]",
        { IsGenericType: true } => $"\"{key}: [{{path: train.jsonl}}]\"",
        _ => key == "path" ? "\"path: train.jsonl\"" : $"\"{key}: demo\"",
    };

    private static string Describe(RangeAttribute range, bool saysMost = false)
    {
        string kind = range.OperandType == typeof(int) ? "an integer" : "a number";
        string least = $"{(range.MinimumIsExclusive ? "above" : "from")} {Show(range.Minimum)}";
        string most = $"{(range.MaximumIsExclusive ? "up to but not including" : "to")} {Show(range.Maximum)}";
        return !saysMost && range.Maximum is int.MaxValue or double.MaxValue
            ? $"{kind} {(range.MinimumIsExclusive ? $"above {Show(range.Minimum)}" : $"of at least {Show(range.Minimum)}")}"
            : $"{kind} {least} {most}";
    }

    private static string Show(object value) => Convert.ToString(value, CultureInfo.InvariantCulture)!;

    private static string Join(string path, string key) => path.Length == 0 ? key : $"{path}.{key}";
}
