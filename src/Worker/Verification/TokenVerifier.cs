using System.Text;
using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Data;

namespace Trainer.Worker.Verification;

/// <summary>Compares token ids, decoded text and rendered chats with a tokens.json made by transformers.</summary>
public static class TokenVerifier
{
    /// <param name="tokenizerDirectory">Holds tokenizer.json or qwen.tiktoken.</param>
    /// <param name="template">Which template rendered the chats; auto looks at the tokenizer's own chat template.</param>
    public static CaseResult Run(string tokenizerDirectory, string tokensFile, TemplateKind template)
    {
        Tokenizer tokenizer = Tokenizer.Load(tokenizerDirectory);
        ChatTemplate chat = Template(template, tokenizerDirectory);
        var parser = new DocumentParser(new DatasetConfig { Path = tokensFile, Format = DatasetFormat.Messages });
        using JsonDocument document = Read(tokensFile);
        var checks = new List<Check>();
        try
        {
            foreach ((JsonElement item, int i) in document.RootElement.GetProperty("texts").EnumerateArray().Select((item, i) => (item, i)))
            {
                int[] ids = Ids(item.GetProperty("ids"));
                checks.Add(Exact($"text {i} ids", Mismatches(tokenizer.Encode(item.GetProperty("text").GetString()!), ids)));
                checks.Add(Exact($"text {i} decoded", tokenizer.Decode(ids) == item.GetProperty("decoded").GetString() ? 0 : 1));
            }

            foreach ((JsonElement item, int i) in document.RootElement.GetProperty("chats").EnumerateArray().Select((item, i) => (item, i)))
            {
                Conversation conversation = parser.Parse(Encoding.UTF8.GetBytes(item.GetRawText()), i + 1).Conversation!;
                checks.Add(Exact($"chat {i} text", Text(chat.Render(conversation)) == item.GetProperty("text").GetString() ? 0 : 1));
                if (item.TryGetProperty("ids", out JsonElement ids))
                {
                    checks.Add(Exact($"chat {i} ids", Mismatches(chat.Tokenize(conversation, tokenizer).Ids, Ids(ids))));
                }

                if (item.TryGetProperty("prompt_text", out JsonElement prompt))
                {
                    bool thinking = !item.TryGetProperty("enable_thinking", out JsonElement enabled) || enabled.GetBoolean();
                    string rendered = Text(chat.RenderPrompt(WithoutLastAnswer(conversation), thinking));
                    checks.Add(Exact($"chat {i} prompt", rendered == prompt.GetString() ? 0 : 1));
                }
            }
        }
        catch (Exception e) when (e is KeyNotFoundException or InvalidOperationException)
        {
            throw new JobInputException($"{tokensFile}: not a tokens.json of golden cases: {e.Message}", e);
        }

        return CaseResult.Of(Path.GetFileName(tokensFile), checks);
    }

    private static ChatTemplate Template(TemplateKind template, string tokenizerDirectory)
    {
        if (template == TemplateKind.Auto && Path.GetFileName(TokenizerFile.PathIn(tokenizerDirectory)) == TiktokenReader.FileName)
        {
            return ChatTemplate.Create(TemplateKind.Chatml, new ChatOptions { ModelSystem = ChatmlTemplate.FirstQwenSystem });
        }

        if (template != TemplateKind.Auto || JinjaTemplate.Find(tokenizerDirectory) is not { } own)
        {
            return ChatTemplate.Create(ChatTemplate.Resolve(template, modelType: "qwen3"));
        }

        return own.HasThoughts ? ChatTemplate.Create(TemplateKind.Qwen3)
            : ChatTemplate.Create(TemplateKind.Qwen25, new ChatOptions { ModelSystem = own.DefaultSystem ?? "" });
    }

    /// <summary>What a prompt is made of: everything up to the answer that the chat ends with.</summary>
    private static Conversation WithoutLastAnswer(Conversation conversation) =>
        conversation.Messages[^1].Role == "assistant"
            ? conversation with { Messages = [.. conversation.Messages.SkipLast(1)] }
            : conversation;

    private static string Text(IEnumerable<Segment> segments) => string.Concat(segments.Select(segment => segment.Text));

    private static Check Exact(string name, int wrong) => Check.Of(name, wrong, 0);

    private static int Mismatches(int[] actual, int[] expected) =>
        Math.Abs(actual.Length - expected.Length) + actual.Zip(expected).Count(pair => pair.First != pair.Second);

    private static int[] Ids(JsonElement array) => [.. array.EnumerateArray().Select(id => id.GetInt32())];

    private static JsonDocument Read(string path)
    {
        try
        {
            return JsonDocument.Parse(File.ReadAllBytes(path));
        }
        catch (Exception e) when (e is JsonException or IOException)
        {
            throw new JobInputException($"{path}: {e.Message}", e);
        }
    }
}
