using Trainer.Contracts;

namespace Trainer.Worker.Data;

/// <summary>
/// The template of Qwen3: tools, and thoughts that are kept only after the last question of a person, so that history costs
/// no context while a chain of tool calls keeps its reasoning.
/// </summary>
internal sealed class Qwen3Template(ChatOptions options) : ChatTemplate(TemplateKind.Qwen3, options)
{
    private protected override void WriteSystem(SegmentWriter writer, Conversation conversation)
    {
        Message first = conversation.Messages[0];
        if (conversation.Tools.Count > 0)
        {
            writer.Frame("<|im_start|>system\n");
            if (first.Role == "system")
            {
                writer.Content(first.Content);
                writer.Frame("\n\n");
            }

            WriteTools(writer, conversation.Tools);
        }
        else if (first.Role == "system")
        {
            WritePlainTurn(writer, first);
        }
    }

    private protected override void WriteAnswer(SegmentWriter writer, IReadOnlyList<Message> messages, int index)
    {
        Message message = messages[index];
        (string thought, string content) = Split(message);
        bool isLast = index == messages.Count - 1;
        if (index > LastQuestion(messages) && (isLast || thought.Length > 0))
        {
            writer.Frame("<think>\n");
            writer.Content(thought.Trim('\n'));
            writer.Frame("\n</think>\n\n");
            writer.Content(content.TrimStart('\n'));
        }
        else
        {
            writer.Content(content);
        }

        bool first = content.Length == 0;
        foreach (ToolCall call in message.ToolCalls)
        {
            writer.Frame(first ? "" : "\n");
            WriteToolCall(writer, call.Name, call.ArgumentsText ?? call.Arguments);
            first = false;
        }
    }

    private protected override void WriteAnswerStart(SegmentWriter writer, bool thinking)
    {
        if (!thinking)
        {
            writer.Frame("<think>\n\n</think>\n\n");
        }
    }

    private static (string Thought, string Content) Split(Message message)
    {
        const string Open = "<think>", Close = "</think>";
        int firstClose = message.Content.IndexOf(Close, StringComparison.Ordinal);
        if (message.Reasoning is not null || firstClose < 0)
        {
            return (message.Reasoning ?? "", message.Content);
        }

        string before = message.Content[..firstClose].TrimEnd('\n');
        int lastOpen = before.LastIndexOf(Open, StringComparison.Ordinal);
        string thought = lastOpen < 0 ? before : before[(lastOpen + Open.Length)..];
        int lastClose = message.Content.LastIndexOf(Close, StringComparison.Ordinal);
        return (thought.TrimStart('\n'), message.Content[(lastClose + Close.Length)..].TrimStart('\n'));
    }

    /// <summary>Index of the last user turn that is no tool response in disguise; without one, of the last message.</summary>
    private static int LastQuestion(IReadOnlyList<Message> messages)
    {
        for (int i = messages.Count - 1; i >= 0; i--)
        {
            string content = messages[i].Content;
            bool isToolResponse = content.StartsWith("<tool_response>", StringComparison.Ordinal)
                && content.EndsWith("</tool_response>", StringComparison.Ordinal);
            if (messages[i].Role == "user" && !isToolResponse)
            {
                return i;
            }
        }

        return messages.Count - 1;
    }
}
