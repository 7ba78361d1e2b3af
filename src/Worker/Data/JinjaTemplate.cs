using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Trainer.Worker.Data;

/// <summary>The chat template that a tokenizer's folder brings, as far as it decides how conversations are rendered here.</summary>
internal sealed class JinjaTemplate
{
    private const string TurnStart = "<|im_start|>system", TurnEnd = "<|im_end|>";

    private static readonly JsonSerializerOptions s_readable = new() { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Where literals in <see cref="Text"/> are the turn of the default system message, and where in it that message stands.</summary>
    private readonly List<(Range Turn, Range Message)> _defaults = [];

    public JinjaTemplate(string text, string source = "", string? defect = null)
    {
        Text = text;
        Source = source;
        Defect = defect ?? JinjaSyntax.Error(text);
        string code = WithoutComments(text);
        for (int at = code.IndexOf(TurnStart, StringComparison.Ordinal); at >= 0; at = code.IndexOf(TurnStart, at + 1, StringComparison.Ordinal))
        {
            Look(code, at);
        }
    }

    public string Text { get; }

    /// <summary>The file that it was found in.</summary>
    public string Source { get; }

    /// <summary>Why programs that render with it will fail, as far as is seen here; null: nothing.</summary>
    public string? Defect { get; }

    /// <summary>Whether it frames turns as ChatML does, as all templates here do.</summary>
    public bool IsChatml => Text.Contains("<|im_start|>", StringComparison.Ordinal);

    public bool HasThoughts => Text.Contains("<think>", StringComparison.Ordinal);

    /// <summary>The system message that it writes for conversations that bring none; null when it writes none.</summary>
    public string? DefaultSystem { get; private set; }

    /// <summary>It writes a system turn in a way that is not understood here.</summary>
    public bool IsUnclear { get; private set; }

    /// <summary>chat_template.jinja or, in older snapshots, chat_template of tokenizer_config.json; null when the folder has neither.</summary>
    /// <exception cref="JobInputException">tokenizer_config.json is malformed.</exception>
    public static JinjaTemplate? Find(string tokenizerDirectory)
    {
        string jinja = JinjaFile(tokenizerDirectory), config = ConfigFile(tokenizerDirectory);
        if (File.Exists(jinja))
        {
            try
            {
                string text = File.ReadAllText(jinja);
                return new JinjaTemplate(text, jinja, IsUtf8(jinja) ? Emptiness(text) : "is not UTF-8");
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                return new JinjaTemplate("", jinja, $"cannot be read ({e.Message.TrimEnd('.')})");
            }
        }

        JsonObject? json = File.Exists(config) ? Read(config) : null;
        return Place(json) is { Text: { } given } ? new JinjaTemplate(given, config, Emptiness(given))
            : json?["chat_template"] is JsonArray ? new JinjaTemplate("", config, "chat_template has no template named \"default\"")
            : json?["chat_template"] is not null ? new JinjaTemplate("", config, "chat_template is neither a text nor a list of named ones")
            : null;
    }

    /// <summary>Gives the chat template of a tokenizer's folder another default system message. Leaves alone what writes none.</summary>
    public static void SetDefaultSystem(string tokenizerDirectory, string system)
    {
        string jinja = JinjaFile(tokenizerDirectory), config = ConfigFile(tokenizerDirectory);
        if (File.Exists(jinja) && IsUtf8(jinja) && new JinjaTemplate(File.ReadAllText(jinja)).WithDefaultSystem(system) is { } file)
        {
            File.WriteAllText(jinja, file);
        }

        if (File.Exists(config) && Read(config) is { } json && Place(json) is var (holder, key, text) && new JinjaTemplate(text).WithDefaultSystem(system) is { } template)
        {
            holder[key] = template;
            File.WriteAllText(config, json.ToJsonString(s_readable) + "\n");
        }
    }

    /// <summary>The text with another default system message wherever it writes it, with an empty one without that turn; null when it writes none.</summary>
    public string? WithDefaultSystem(string system)
    {
        if (_defaults.Count == 0)
        {
            return null;
        }

        string written = Text[_defaults[0].Message], escaped = Escape(system);
        var text = new StringBuilder(Text);
        foreach ((Range turn, Range message) in _defaults.AsEnumerable().Reverse())
        {
            (int start, int length) = (system.Length == 0 ? turn : message).GetOffsetAndLength(Text.Length);
            text.Remove(start, length).Insert(start, escaped);
        }

        // With tools Qwen2.5 writes it in pieces. One word may be another thing, a role's name.
        return written.Contains(' ', StringComparison.Ordinal)
            ? text.Replace($"'{written}'", $"'{escaped}'").Replace($"\"{written}\"", $"\"{escaped}\"").ToString()
            : text.ToString();
    }

    private static string JinjaFile(string directory) => Path.Combine(directory, "chat_template.jinja");

    private static string ConfigFile(string directory) => Path.Combine(directory, "tokenizer_config.json");

    private static string? Emptiness(string text) => string.IsNullOrWhiteSpace(text) ? "the chat template is empty" : null;

    private static bool IsUtf8(string file)
    {
        try
        {
            new UTF8Encoding(false, throwOnInvalidBytes: true).GetCharCount(File.ReadAllBytes(file));
            return true;
        }
        catch (DecoderFallbackException)
        {
            return false;
        }
    }

    private static JsonObject? Read(string config)
    {
        if (!IsUtf8(config))
        {
            throw new JobInputException($"{config}: is not UTF-8; download the file again");
        }

        try
        {
            return JsonNode.Parse(File.ReadAllBytes(config)) as JsonObject;
        }
        catch (JsonException e)
        {
            throw JobInputException.MalformedJson(config, e);
        }
    }

    /// <summary>The text that counts, that of "default" where there are several, and where it stands.</summary>
    private static (JsonObject Holder, string Key, string Text)? Place(JsonObject? config)
    {
        JsonObject? named = (config?["chat_template"] as JsonArray)?.OfType<JsonObject>().FirstOrDefault(entry => TextOf(entry["name"]) == "default");
        return named is not null && TextOf(named["template"]) is { } one ? (named, "template", one)
            : config is not null && TextOf(config["chat_template"]) is { } all ? (config, "chat_template", all)
            : null;
    }

    private static string? TextOf(JsonNode? node) => node is JsonValue value && value.TryGetValue(out string? text) ? text : null;

    /// <summary>Spaces instead of comments, so that places stay the same.</summary>
    private static string WithoutComments(string text)
    {
        var code = new StringBuilder(text);
        for (int start = text.IndexOf("{#", StringComparison.Ordinal); start >= 0;)
        {
            int end = text.IndexOf("#}", start + 2, StringComparison.Ordinal);
            if (end < 0)
            {
                break;
            }

            for (int i = start; i < end + 2; i++)
            {
                code[i] = ' ';
            }

            start = text.IndexOf("{#", end + 2, StringComparison.Ordinal);
        }

        return code.ToString();
    }

    private static string Escape(string text) => text.Replace("\\", @"\\", StringComparison.Ordinal).Replace("'", @"\'", StringComparison.Ordinal)
        .Replace("\"", "\\\"", StringComparison.Ordinal).Replace("\r", @"\r", StringComparison.Ordinal).Replace("\n", @"\n", StringComparison.Ordinal);

    /// <summary>Understands what begins a literal: a turn put together of variables has nothing but its beginning there, a default turn all of it.</summary>
    private void Look(string code, int at)
    {
        char quote = at > 0 ? code[at - 1] : ' ';
        int end = quote is '\'' or '"' ? EndOfLiteral(code, at, quote) : -1;
        if (end < 0)
        {
            IsUnclear = true;
            return;
        }

        string literal = Unescape(code[at..end]);
        int body = TurnStart.Length + 1, turnEnd = literal.IndexOf(TurnEnd, StringComparison.Ordinal);
        if (literal == TurnStart || literal == TurnStart + "\n")
        {
            return;
        }

        if (!literal.StartsWith(TurnStart + "\n", StringComparison.Ordinal) || turnEnd < body || literal[(turnEnd + TurnEnd.Length)..].Trim().Length > 0)
        {
            IsUnclear = true;
            return;
        }

        DefaultSystem ??= literal[body..turnEnd];
        int start = at + TurnStart.Length + (code[at + TurnStart.Length] == '\\' ? 2 : 1);
        _defaults.Add((at..end, start..code.IndexOf(TurnEnd, start, StringComparison.Ordinal)));
    }

    private static int EndOfLiteral(string code, int at, char quote)
    {
        for (int i = at; i < code.Length; i++)
        {
            if (code[i] == quote)
            {
                return i;
            }

            // A literal of a chat template is a few hundred characters long: a text full of quotes is not searched over and over.
            if (i - at > 1 << 16)
            {
                return -1;
            }

            i += code[i] == '\\' ? 1 : 0;
        }

        return -1;
    }

    private static string Unescape(string literal)
    {
        var text = new StringBuilder(literal.Length);
        for (int i = 0; i < literal.Length; i++)
        {
            char next = literal[i] == '\\' && i + 1 < literal.Length ? literal[++i] : '\0';
            text.Append(next switch { '\0' => literal[i].ToString(), 'n' => "\n", 'r' => "\r", 't' => "\t", '\\' or '\'' or '"' => next.ToString(), _ => "\\" + next });
        }

        return text.ToString();
    }
}
