using YamlDotNet.Core;
using YamlDotNet.Core.Events;

namespace Trainer.Contracts;

/// <summary>
/// Reads one YAML document into nodes with positions. Anchors, aliases and tags are refused: a job is data that a person
/// reads from top to bottom. Syntax errors end the reading; duplicate keys are collected.
/// </summary>
internal sealed class ConfigYaml(string file, List<string> problems)
{
    /// <summary>As of JSON here; a job needs 5.</summary>
    private const int MaxDepth = 64;

    private readonly string _file = file;
    private readonly List<string> _problems = problems;
    private int _depth;

    /// <summary>The root mapping, or null after a problem that leaves nothing to go on with.</summary>
    public ConfigMap? ReadDocument(string text)
    {
        try
        {
            var parser = new Parser(new StringReader(text));
            parser.Consume<StreamStart>();
            if (parser.Current is null && !parser.MoveNext() || parser.Accept<StreamEnd>(out _))
            {
                return Empty();
            }
            parser.Consume<DocumentStart>();
            ConfigNode root = ReadNode(parser, "");
            parser.Consume<DocumentEnd>();
            if (parser.Accept<DocumentStart>(out DocumentStart? second))
            {
                Add(second.Start, "", "a second document starts here; put one job in one file");
            }
            return Root(root);
        }
        catch (YamlException error)
        {
            _problems.Add(Describe(error, text));
            return null;
        }
        catch (Exception error) when (IsParserFailure(error))
        {
            _problems.Add($"{_file}:{text.AsSpan().Count('\n') + 1}:1: not valid YAML: the text ends inside a value; "
                + "close every [, { and quote");
            return null;
        }
    }

    /// <summary>What the parser throws at some unclosed brackets instead of a <see cref="YamlException"/>.</summary>
    public static bool IsParserFailure(Exception error) =>
        error is YamlException or FormatException or InvalidOperationException or ArgumentException or IndexOutOfRangeException or NullReferenceException;

    /// <summary>The value of a <c>--set</c> option: YAML too, so that lists and maps can be given.</summary>
    public static ConfigNode ReadValue(string text, string option)
    {
        var problems = new List<string>();
        var reader = new ConfigYaml("", problems);
        var parser = new Parser(new StringReader(text));
        parser.Consume<StreamStart>();
        var origin = new ConfigOrigin("", 1, 1, option);
        if (parser.Accept<StreamEnd>(out _))
        {
            return new ConfigScalar("", quoted: false, origin);
        }
        parser.Consume<DocumentStart>();
        ConfigNode node = reader.ReadNode(parser, "", option);
        parser.Consume<DocumentEnd>();
        return problems.Count == 0 ? node : throw new FormatException(problems[0]);
    }

    private ConfigMap? Root(ConfigNode root)
    {
        switch (root)
        {
            case ConfigMap map:
                return map;
            case ConfigScalar { IsNull: true }:
                return Empty();
            default:
                _problems.Add($"{root.Origin.At("")}: a job is a mapping of keys to values, such as \"name: demo\"; this is "
                    + (root is ConfigList ? "a list" : "plain text"));
                return null;
        }
    }

    private ConfigMap? Empty()
    {
        _problems.Add($"{_file}:1:1: the file is empty; a job needs at least name, model and data");
        return null;
    }

    private ConfigNode ReadNode(Parser parser, string path, string? option = null)
    {
        ParsingEvent current = parser.Current ?? throw new YamlException("the document ends too early");
        ConfigOrigin origin = Origin(current.Start, option);
        if (current is AnchorAlias alias)
        {
            parser.MoveNext();
            Add(alias.Start, path, $"aliases (*{PlainText.Cut(alias.Value.Value)}) are not supported; write the value out");
            return new ConfigScalar("", quoted: true, origin);
        }
        if (current is NodeEvent node && (!node.Anchor.IsEmpty || !node.Tag.IsEmpty))
        {
            Add(node.Start, path, "anchors and tags (& and !) are not supported; write the plain value");
        }
        if (parser.TryConsume<Scalar>(out Scalar? scalar))
        {
            return new ConfigScalar(scalar.Value, scalar.Style is not ScalarStyle.Plain, origin);
        }
        if (++_depth > MaxDepth)
        {
            throw new YamlException(current.Start, current.End, $"values are nested more than {MaxDepth} deep");
        }
        ConfigNode read = parser.TryConsume<SequenceStart>(out _)
            ? ReadList(parser, path, new ConfigList(origin), option)
            : ReadMap(parser, path, new ConfigMap(origin), option);
        _depth--;
        return read;
    }

    private ConfigList ReadList(Parser parser, string path, ConfigList list, string? option)
    {
        while (!parser.TryConsume<SequenceEnd>(out _))
        {
            list.Items.Add(ReadNode(parser, $"{path}[{list.Items.Count}]", option));
        }
        return list;
    }

    private ConfigMap ReadMap(Parser parser, string path, ConfigMap map, string? option)
    {
        parser.Consume<MappingStart>();
        while (!parser.TryConsume<MappingEnd>(out _))
        {
            if (!parser.TryConsume<Scalar>(out Scalar? key))
            {
                throw new YamlException(parser.Current!.Start, parser.Current.End, "a key must be plain text");
            }
            string child = path.Length == 0 ? key.Value : $"{path}.{key.Value}";
            ConfigNode value = ReadNode(parser, child, option);
            if (map.Find(key.Value) is { } first)
            {
                Add(key.Start, child, $"the key is given twice, first in line {first.Origin.Line}; keep one");
                continue;
            }
            map.Add(new ConfigEntry(key.Value, Origin(key.Start, option), value));
        }
        return map;
    }

    private string Describe(YamlException error, string text)
    {
        string[] lines = text.Split('\n');
        int tab = Array.FindIndex(lines, line => line.TrimStart(' ').StartsWith('\t') && line.Trim().Length > 0);
        if (tab >= 0)
        {
            return $"{_file}:{tab + 1}:{lines[tab].IndexOf('\t', StringComparison.Ordinal) + 1}: a tab indents this line; YAML allows only spaces, so replace it";
        }
        string what = (error.InnerException?.Message ?? error.Message).TrimEnd('.');
        return $"{_file}:{error.Start.Line}:{error.Start.Column}: not valid YAML: {char.ToLowerInvariant(what[0])}{what[1..]}; "
            + "check the indentation, colons and quotes here and in the line above";
    }

    private void Add(Mark mark, string path, string what) =>
        _problems.Add($"{Origin(mark, null).At(path)}: {what}");

    private ConfigOrigin Origin(Mark mark, string? option) => new(_file, mark.Line, mark.Column, option);
}
