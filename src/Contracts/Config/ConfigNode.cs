namespace Trainer.Contracts;

/// <summary>Where a value was written: a place in a file, or the option that set it.</summary>
internal sealed record ConfigOrigin(string File, long Line, long Column, string? Option = null)
{
    /// <summary>The start of an error line: <c>file:line:col key</c>, or <c>--set key</c>.</summary>
    public string At(string key) => Option is null
        ? key.Length == 0 ? $"{File}:{Line}:{Column}" : $"{File}:{Line}:{Column} {PlainText.Cut(key)}"
        : $"--set {Option}";
}

/// <summary>A YAML value together with the place where it was written.</summary>
internal abstract class ConfigNode(ConfigOrigin origin)
{
    public ConfigOrigin Origin { get; } = origin;
}

/// <param name="text">The text without its quotes.</param>
/// <param name="quoted">Quoted and block scalars are text, whatever they look like.</param>
/// <param name="origin">Where it was written.</param>
internal sealed class ConfigScalar(string text, bool quoted, ConfigOrigin origin) : ConfigNode(origin)
{
    public string Text { get; } = text;
    public bool Quoted { get; } = quoted;
    public bool IsNull => !Quoted && Text is "" or "~" or "null" or "Null" or "NULL";
}

internal sealed class ConfigList(ConfigOrigin origin) : ConfigNode(origin)
{
    public List<ConfigNode> Items { get; } = [];
}

internal sealed class ConfigMap(ConfigOrigin origin) : ConfigNode(origin)
{
    private readonly OrderedDictionary<string, ConfigEntry> _entries = new(StringComparer.Ordinal);

    /// <summary>In the order in which they were written.</summary>
    public OrderedDictionary<string, ConfigEntry>.ValueCollection Entries => _entries.Values;

    public ConfigEntry? Find(string key) => _entries.GetValueOrDefault(key);

    public void Add(ConfigEntry entry) => _entries.Add(entry.Key, entry);

    public void Remove(string key) => _entries.Remove(key);
}

internal sealed class ConfigEntry(string key, ConfigOrigin origin, ConfigNode value)
{
    public string Key { get; } = key;
    public ConfigOrigin Origin { get; } = origin;
    public ConfigNode Value { get; set; } = value;
}
