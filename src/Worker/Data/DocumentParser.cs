using System.Text.Json;
using Trainer.Contracts;

namespace Trainer.Worker.Data;

/// <summary>Reads one line of a data set. The format, unless the job names it, is told from the first line.</summary>
internal sealed class DocumentParser(DatasetConfig dataset)
{
    private static readonly Dictionary<DatasetFormat, string[]> s_fields = new()
    {
        [DatasetFormat.Messages] = ["messages", "tools"],
        [DatasetFormat.Sharegpt] = ["conversations", "system", "tools"],
        [DatasetFormat.Alpaca] = ["instruction", "input", "output", "system", "history"],
        [DatasetFormat.Completion] = ["prompt", "completion", "system"],
        [DatasetFormat.Text] = ["text"],
    };

    private DatasetFormat _format = dataset.Format;

    /// <exception cref="JobInputException">The line is no document of the format; the message has no place yet.</exception>
    public Document Parse(ReadOnlyMemory<byte> line, int lineNumber)
    {
        try
        {
            using var json = JsonDocument.Parse(line);
            JsonElement record = json.RootElement;
            if (record.ValueKind != JsonValueKind.Object)
            {
                throw new JobInputException(record.ValueKind == JsonValueKind.Array
                    ? "found a JSON list, not an object; write one object per line (jq -c '.[]' file.json > file.jsonl)"
                    : $"found {RecordFields.Describe(record)}, not an object; write one JSON object per line");
            }

            var fields = new RecordFields(record, dataset.Mapping);
            if (_format == DatasetFormat.Auto)
            {
                _format = Detect(fields, record);
            }

            RequireKnownMapping();
            return ToDocument(fields, lineNumber);
        }
        catch (JsonException e)
        {
            throw Malformed(line, e);
        }
        catch (InvalidOperationException e)
        {
            // The only way here: a string whose bytes are not UTF-8, or an escaped half of a surrogate pair.
            throw new JobInputException("a string is not valid Unicode; save the file as UTF-8 and remove lone \\ud800..\\udfff escapes", e);
        }
    }

    private Document ToDocument(RecordFields fields, int line) => _format switch
    {
        DatasetFormat.Messages => new(dataset.Path, line,
            new Conversation(MessageReader.Messages(fields.List("messages")), fields.Tools()), null),
        DatasetFormat.Sharegpt => new(dataset.Path, line,
            new Conversation([.. System(fields), .. MessageReader.ShareGpt(fields.List("conversations"))], fields.Tools()), null),
        DatasetFormat.Alpaca => new(dataset.Path, line, new Conversation(Alpaca(fields)), null),
        DatasetFormat.Completion => new(dataset.Path, line, new Conversation([.. System(fields),
            new Message("user", fields.Text("prompt")), new Message("assistant", fields.Text("completion"))]), null),
        _ => new(dataset.Path, line, null, fields.Text("text")),
    };

    private static List<Message> Alpaca(RecordFields fields)
    {
        List<Message> messages = [.. System(fields)];
        if (fields.Has("history"))
        {
            foreach (JsonElement pair in fields.List("history").EnumerateArray())
            {
                if (pair.ValueKind != JsonValueKind.Array || pair.GetArrayLength() != 2)
                {
                    throw new JobInputException("history holds something other than pairs; write [[instruction, output], ...]");
                }

                messages.Add(new Message("user", RecordFields.TextOf(pair[0], "history")));
                messages.Add(new Message("assistant", RecordFields.TextOf(pair[1], "history")));
            }
        }

        string input = fields.OptionalText("input") ?? "";
        string instruction = fields.Text("instruction");
        messages.Add(new Message("user", input.Length > 0 ? $"{instruction}\n{input}" : instruction));
        messages.Add(new Message("assistant", fields.Text("output")));
        return messages;
    }

    private static IEnumerable<Message> System(RecordFields fields) =>
        fields.OptionalText("system") is { Length: > 0 } system ? [new Message("system", system)] : [];

    private static DatasetFormat Detect(RecordFields fields, JsonElement record) =>
        fields.Has("messages") ? DatasetFormat.Messages
        : fields.Has("conversations") ? DatasetFormat.Sharegpt
        : fields.Has("instruction") && fields.Has("output") ? DatasetFormat.Alpaca
        : fields.Has("prompt") && fields.Has("completion") ? DatasetFormat.Completion
        : fields.Has("text") ? DatasetFormat.Text
        : throw new JobInputException("cannot tell the format from the fields "
            + $"{string.Join(", ", record.EnumerateObject().Select(property => property.Name))}; name the fields, "
            + "e.g. mapping: {prompt: question, completion: answer}, or set format");

    private void RequireKnownMapping()
    {
        string[] known = s_fields[_format];
        if (dataset.Mapping.Keys.FirstOrDefault(key => !known.Contains(key)) is { } unknown)
        {
            throw new JobInputException($"the mapping names \"{unknown}\", which format {_format.ToString().ToLowerInvariant()} "
                + $"does not have; map {string.Join(", ", known)}");
        }
    }

    private static JobInputException Malformed(ReadOnlyMemory<byte> line, JsonException e)
    {
        string cure = line.Span.TrimStart(" \t"u8).StartsWith("["u8)
            ? "this looks like a JSON list, write one object per line (jq -c '.[]' file.json > file.jsonl)"
            : "write one complete JSON object per line";
        string reason = e.Message.Split(" LineNumber:")[0].TrimEnd('.');
        return new JobInputException($"malformed JSON at byte {e.BytePositionInLine + 1}: {reason}; {cure}", e);
    }
}
