using System.Text.Json;

namespace Trainer.Worker.Data;

/// <summary>
/// What tokenizer_config.json and generation_config.json say about the end of a text; both are optional. End: tokens that
/// end a generation, by id or by content.
/// </summary>
internal sealed record SpecialTokens(IReadOnlyList<(int? Id, string? Content)> End, string? Padding)
{
    public static SpecialTokens Load(string directory)
    {
        var end = new List<(int?, string?)>();
        string? padding = null;
        if (ReadObject(Path.Combine(directory, "generation_config.json")) is { } generation
            && generation.TryGetProperty("eos_token_id", out JsonElement ids))
        {
            end.AddRange((ids.ValueKind == JsonValueKind.Array ? ids.EnumerateArray().ToArray() : [ids])
                .Where(id => id.ValueKind == JsonValueKind.Number).Select(id => ((int?)id.GetInt32(), (string?)null)));
        }

        if (ReadObject(Path.Combine(directory, "tokenizer_config.json")) is { } config)
        {
            if (Content(config, "eos_token") is { } eos)
            {
                end.Add((null, eos));
            }

            padding = Content(config, "pad_token");
        }

        return new SpecialTokens(end, padding);
    }

    /// <summary>A token is written as its text, or as an object with its text.</summary>
    private static string? Content(JsonElement config, string name)
    {
        if (!config.TryGetProperty(name, out JsonElement token))
        {
            return null;
        }

        if (token.ValueKind == JsonValueKind.Object && token.TryGetProperty("content", out JsonElement content))
        {
            token = content;
        }

        return token.ValueKind == JsonValueKind.String ? token.GetString() : null;
    }

    private static JsonElement? ReadObject(string path)
    {
        if (!File.Exists(path))
        {
            return null;
        }

        try
        {
            using var json = JsonDocument.Parse(File.ReadAllText(path));
            return json.RootElement.ValueKind == JsonValueKind.Object
                ? json.RootElement.Clone()
                : throw new JobInputException($"{path}: not a JSON object; download the file again");
        }
        catch (JsonException e)
        {
            throw JobInputException.MalformedJson(path, e);
        }
    }
}
