using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

public sealed class TokenizerTests
{
    private static readonly JsonElement s_golden = JsonDocument.Parse(
        File.ReadAllBytes(Path.Combine(Fixtures.Root, "tests", "golden", "tokens.json"))).RootElement;

    private static Tokenizer Tokenizer => Fixtures.Qwen3;

    [Fact]
    public void Golden_texts_have_the_ids_and_the_decoding_of_hugging_face()
    {
        foreach (JsonElement golden in s_golden.GetProperty("texts").EnumerateArray())
        {
            int[] ids = Tokenizer.Encode(golden.GetProperty("text").GetString()!);
            Assert.Equal(Ints(golden.GetProperty("ids")), ids);
            Assert.Equal(golden.GetProperty("decoded").GetString(), Tokenizer.Decode(ids));
        }
    }

    [Fact]
    public void Golden_chats_have_the_text_the_ids_and_the_prompt_of_hugging_face()
    {
        var template = ChatTemplate.Create(TemplateKind.Qwen3);
        foreach (JsonElement golden in s_golden.GetProperty("chats").EnumerateArray())
        {
            Message[] messages = [.. golden.GetProperty("messages").EnumerateArray()
                .Select(m => new Message(m.GetProperty("role").GetString()!, m.GetProperty("content").GetString()!))];
            var conversation = new Conversation(messages);
            Assert.Equal(golden.GetProperty("text").GetString(), string.Concat(template.Render(conversation).Select(s => s.Text)));
            Assert.Equal(Ints(golden.GetProperty("ids")), template.Tokenize(conversation, Tokenizer).Ids);
            string prompt = string.Concat(template.RenderPrompt(new Conversation(messages[..^1])).Select(s => s.Text));
            Assert.Equal(golden.GetProperty("prompt_text").GetString(), prompt);
        }
    }

    private static int[] Ints(JsonElement array) => [.. array.EnumerateArray().Select(id => id.GetInt32())];
}
