using System.Text.Json;

namespace Trainer.Worker.Data;

/// <summary>
/// The fields of one JSON object by our names: the mapping of the job says what the file calls them. Every complaint says
/// what was found and what to do.
/// </summary>
internal readonly struct RecordFields(JsonElement record, IReadOnlyDictionary<string, string> mapping)
{
    public bool Has(string field) =>
        record.TryGetProperty(NameInFile(field), out JsonElement value) && value.ValueKind != JsonValueKind.Null;

    public JsonElement? Optional(string field) => Has(field) ? record.GetProperty(NameInFile(field)) : null;

    public JsonElement Required(string field)
    {
        if (Optional(field) is { } value)
        {
            return value;
        }

        string name = NameInFile(field);
        string present = string.Join(", ", record.EnumerateObject().Select(property => property.Name));
        string state = record.TryGetProperty(name, out _) ? "is null" : "is missing";
        string cure = name == field ? $"name the right field with mapping: {{{field}: ...}}" : "correct the mapping";
        throw new JobInputException($"field \"{name}\" {state} (fields: {present}); {cure} or repair the line");
    }

    public string Text(string field) => TextOf(Required(field), NameInFile(field));

    public string? OptionalText(string field) => Optional(field) is { } value ? TextOf(value, NameInFile(field)) : null;

    public JsonElement List(string field) => ListOf(Required(field), NameInFile(field));

    /// <summary>A list, or a string that holds one as JSON; absent means empty.</summary>
    public IReadOnlyList<string> Tools()
    {
        if (Optional("tools") is not { } tools)
        {
            return [];
        }

        string name = NameInFile("tools");
        if (tools.ValueKind == JsonValueKind.String)
        {
            string text = tools.GetString()!;
            if (string.IsNullOrWhiteSpace(text))
            {
                return [];
            }

            using JsonDocument parsed = ParseInner(text, name);
            return Schemas(parsed.RootElement, name);
        }

        return Schemas(tools, name);
    }

    public static string TextOf(JsonElement value, string name) => value.ValueKind == JsonValueKind.String
        ? value.GetString()!
        : throw new JobInputException($"field \"{name}\" is {Describe(value)}, not a string; write it as a string");

    public static JsonElement ListOf(JsonElement value, string name) => value.ValueKind == JsonValueKind.Array
        ? value
        : throw new JobInputException($"field \"{name}\" is {Describe(value)}, not a list; write it as a list");

    public static JsonDocument ParseInner(string text, string name)
    {
        try
        {
            return JsonDocument.Parse(text);
        }
        catch (JsonException e)
        {
            throw new JobInputException($"field \"{name}\" is a string that holds no valid JSON; correct or remove it", e);
        }
    }

    public static string Describe(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "a list",
        JsonValueKind.String => "a string",
        JsonValueKind.Number => "a number",
        JsonValueKind.Null => "null",
        _ => "true or false",
    };

    private static string[] Schemas(JsonElement list, string name) => [.. ListOf(list, name).EnumerateArray()
        .Select(schema => schema.ValueKind == JsonValueKind.Object
            ? PythonJson.Write(schema)
            : throw new JobInputException($"field \"{name}\" lists {Describe(schema)}, not function schemas; write each as an object"))];

    private string NameInFile(string field) => mapping.GetValueOrDefault(field, field);
}
