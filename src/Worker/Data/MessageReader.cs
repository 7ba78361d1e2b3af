using System.Text.Json;

namespace Trainer.Worker.Data;

/// <summary>Turns of a conversation, as OpenAI (role, content) or as ShareGPT (from, value) writes them.</summary>
internal static class MessageReader
{
    public static Message[] Messages(JsonElement list) =>
        [.. list.EnumerateArray().Select((turn, i) => InTurn(i, () => Message(RequireObject(turn))))];

    /// <summary>Turns may also be written with role and content, as some files do under the name "conversations".</summary>
    public static Message[] ShareGpt(JsonElement list) => [.. list.EnumerateArray().Select((turn, i) => InTurn(i, () =>
        RequireObject(turn).TryGetProperty("from", out _) ? ShareGptMessage(turn) : Message(turn)))];

    private static Message Message(JsonElement turn)
    {
        string role = RecordFields.TextOf(RequireField(turn, "role"), "role");
        ToolCall[] calls = Field(turn, "tool_calls") is { } list
            ? [.. RecordFields.ListOf(list, "tool_calls").EnumerateArray().Select(ToolCall)]
            : [];
        if (calls.Length > 0 && role != "assistant")
        {
            throw new JobInputException($"role \"{role}\" has tool_calls; only an assistant calls tools");
        }

        return new Message(role, calls.Length > 0 && Field(turn, "content") is null ? "" : Content(RequireField(turn, "content")))
        {
            Reasoning = Field(turn, "reasoning_content") is { } reasoning
                ? RecordFields.TextOf(reasoning, "reasoning_content")
                : null,
            ToolCalls = calls,
        };
    }

    private static Message ShareGptMessage(JsonElement turn)
    {
        string from = RecordFields.TextOf(RequireField(turn, "from"), "from");
        string value = RecordFields.TextOf(RequireField(turn, "value"), "value");
        if (from == "function_call")
        {
            using JsonDocument calls = RecordFields.ParseInner(value, "value");
            return new Message("assistant", "")
            {
                ToolCalls = calls.RootElement.ValueKind == JsonValueKind.Array
                    ? [.. calls.RootElement.EnumerateArray().Select(ToolCall)]
                    : [ToolCall(calls.RootElement)],
            };
        }

        return new Message(
            from switch
            {
                "human" => "user",
                "gpt" or "chatgpt" or "model" or "bot" => "assistant",
                "observation" or "function_response" => "tool",
                _ => from,
            },
            value);
    }

    /// <summary>The call itself, or an object that holds it as "function".</summary>
    private static ToolCall ToolCall(JsonElement call)
    {
        JsonElement function = Field(RequireObject(call), "function") is { } inner ? RequireObject(inner) : call;
        string name = RecordFields.TextOf(RequireField(function, "name"), "name");
        JsonElement arguments = RequireField(function, "arguments");
        return arguments.ValueKind switch
        {
            JsonValueKind.Object => new ToolCall(name, PythonJson.Write(arguments)),
            JsonValueKind.String => new ToolCall(name, PythonJson.Write(arguments), arguments.GetString()),
            _ => throw new JobInputException(
                $"the arguments of tool call \"{name}\" are {RecordFields.Describe(arguments)}; write an object or its JSON as a string"),
        };
    }

    /// <summary>A string, or a list of parts of which all are text.</summary>
    private static string Content(JsonElement content) => content.ValueKind switch
    {
        JsonValueKind.String => content.GetString()!,
        JsonValueKind.Array => string.Concat(content.EnumerateArray().Select(Part)),
        _ => throw new JobInputException(
            $"content is {RecordFields.Describe(content)}; write a string or a list of {{\"type\": \"text\", \"text\": ...}}"),
    };

    private static string Part(JsonElement part)
    {
        string type = RecordFields.TextOf(RequireField(RequireObject(part), "type"), "type");
        return type == "text"
            ? RecordFields.TextOf(RequireField(part, "text"), "text")
            : throw new JobInputException($"content has a part of type \"{type}\"; only text can be trained, remove the others");
    }

    private static JsonElement RequireObject(JsonElement value) => value.ValueKind == JsonValueKind.Object
        ? value
        : throw new JobInputException($"found {RecordFields.Describe(value)} where an object belongs; write it as an object");

    private static JsonElement RequireField(JsonElement parent, string name) => Field(parent, name)
        ?? throw new JobInputException($"\"{name}\" is missing or null (fields: "
            + $"{string.Join(", ", parent.EnumerateObject().Select(property => property.Name))}); add it");

    private static JsonElement? Field(JsonElement parent, string name) =>
        parent.TryGetProperty(name, out JsonElement value) && value.ValueKind != JsonValueKind.Null ? value : null;

    private static Message InTurn(int index, Func<Message> read)
    {
        try
        {
            return read();
        }
        catch (JobInputException e)
        {
            throw new JobInputException($"message {index + 1}: {e.Message}", e);
        }
    }
}
