using System.Text.Json;
using System.Text.RegularExpressions;

namespace Trainer.Worker.Data;

/// <summary>The chat template that a tokenizer's folder brings, as far as it decides how conversations are rendered here.</summary>
internal sealed partial record JinjaTemplate(string Text)
{
    /// <summary>Whether it frames turns as ChatML does, as all templates here do.</summary>
    public bool IsChatml => Text.Contains("<|im_start|>", StringComparison.Ordinal);

    public bool HasThoughts => Text.Contains("<think>", StringComparison.Ordinal);

    /// <summary>The system message that it writes for conversations that bring none; null when it writes none.</summary>
    public string? DefaultSystem => SystemTurn().Match(Text) is { Success: true } turn ? turn.Groups["text"].Value.Replace("\\n", "\n", StringComparison.Ordinal) : null;

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
