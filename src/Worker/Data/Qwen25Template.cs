using Trainer.Contracts;

namespace Trainer.Worker.Data;

/// <summary>The template of Qwen2.5-Instruct: a default system message, tools, no thoughts.</summary>
internal sealed class Qwen25Template(ChatOptions options) : ChatTemplate(TemplateKind.Qwen25, options)
{
    public const string DefaultSystem = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

    private protected override void WriteSystem(SegmentWriter writer, Conversation conversation)
    {
        Message first = conversation.Messages[0];
        string content = first.Role == "system" ? first.Content : IsSilent ? "" : ModelSystem ?? DefaultSystem;
        bool says = first.Role == "system" || content.Length > 0;
        if (conversation.Tools.Count == 0)
        {
            if (says)
            {
                WritePlainTurn(writer, new Message("system", content));
            }

            return;
        }

        writer.Frame("<|im_start|>system\n");
        if (says || (IsSilent && ModelSystem is not ""))
        {
            // A template whose default was emptied writes the line breaks after it all the same.
            writer.Content(content);
            writer.Frame("\n\n");
        }

        WriteTools(writer, conversation.Tools);
    }

    /// <summary>Arguments that the data holds as a string are written as a JSON string: so does the published template.</summary>
    private protected override void WriteAnswer(SegmentWriter writer, IReadOnlyList<Message> messages, int index)
    {
        Message message = messages[index];
        writer.Content(message.Content);
        bool first = message.Content.Length == 0;
        foreach (ToolCall call in message.ToolCalls)
        {
            writer.Frame(first ? "" : "\n");
            WriteToolCall(writer, call.Name, call.Arguments);
            first = false;
        }
    }
}
