using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace Trainer.Worker.Data;

/// <summary>The chat template that a tokenizer's folder brings, as far as it decides how conversations are rendered here.</summary>
internal sealed partial record JinjaTemplate(string Text)
{
    private static readonly JsonSerializerOptions s_readable = new() { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Whether it frames turns as ChatML does, as all templates here do.</summary>
    public bool IsChatml => Text.Contains("<|im_start|>", StringComparison.Ordinal);

    public bool HasThoughts => Text.Contains("<think>", StringComparison.Ordinal);

    /// <summary>The system message that it writes for conversations that bring none; null when it writes none.</summary>
    public string? DefaultSystem => Literal?.Replace("\\n", "\n", StringComparison.Ordinal);

    private string? Literal => SystemTurn().Match(Text) is { Success: true } turn ? turn.Groups["text"].Value : null;

    /// <summary>The template with another default system message, wherever it writes it; null when it writes none.</summary>
    public JinjaTemplate? WithDefaultSystem(string system) => Literal is not { } literal ? null : new JinjaTemplate(Text.Replace(
        literal,
        system.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("'", "\\'", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal)
            .ReplaceLineEndings("\\n"),
        StringComparison.Ordinal));

    /// <summary>chat_template.jinja or, in older snapshots, chat_template of tokenizer_config.json; null when the folder has neither.</summary>
    /// <exception cref="JobInputException">tokenizer_config.json is malformed.</exception>
    public static JinjaTemplate? Find(string tokenizerDirectory)
    {
        string jinja = Path.Combine(tokenizerDirectory, "chat_template.jinja"), config = Path.Combine(tokenizerDirectory, "tokenizer_config.json");
        if (File.Exists(jinja))
        {
            return new JinjaTemplate(File.ReadAllText(jinja));
        }

        if (!File.Exists(config))
        {
            return null;
        }

        try
        {
            using var json = JsonDocument.Parse(File.ReadAllBytes(config));
            return json.RootElement.ValueKind == JsonValueKind.Object && json.RootElement.TryGetProperty("chat_template", out JsonElement template)
                && Default(template) is { } text ? new JinjaTemplate(text) : null;
        }
        catch (JsonException e)
        {
            throw new JobInputException($"{config}: {e.Message}; download the file again", e);
        }
    }

    /// <summary>Gives the chat template of a tokenizer's folder another default system message. Leaves alone what writes none.</summary>
    public static void SetDefaultSystem(string tokenizerDirectory, string system)
    {
        string jinja = Path.Combine(tokenizerDirectory, "chat_template.jinja"), config = Path.Combine(tokenizerDirectory, "tokenizer_config.json");
        if (File.Exists(jinja) && new JinjaTemplate(File.ReadAllText(jinja)).WithDefaultSystem(system) is { } file)
        {
            File.WriteAllText(jinja, file.Text);
        }

        if (File.Exists(config) && JsonNode.Parse(File.ReadAllBytes(config)) is JsonObject json && json["chat_template"] is JsonValue value
            && value.TryGetValue(out string? text) && new JinjaTemplate(text).WithDefaultSystem(system) is { } template)
        {
            json["chat_template"] = template.Text;
            File.WriteAllText(config, json.ToJsonString(s_readable) + "\n");
        }
    }

    /// <summary>The text, or of several named ones that of "default".</summary>
    private static string? Default(JsonElement template) => template.ValueKind switch
    {
        JsonValueKind.String => template.GetString(),
        JsonValueKind.Array => template.EnumerateArray()
            .Where(named => named.ValueKind == JsonValueKind.Object && named.TryGetProperty("name", out JsonElement name) && name.ValueEquals("default"))
            .Select(named => named.TryGetProperty("template", out JsonElement text) ? text.GetString() : null)
            .FirstOrDefault(),
        _ => null,
    };

    /// <summary>Within one literal: what is put together of variables has quotes in it.</summary>
    [GeneratedRegex("""<\|im_start\|>system(\\n|\n)(?<text>[^'"{}]+?)<\|im_end\|>""")]
    private static partial Regex SystemTurn();
}
