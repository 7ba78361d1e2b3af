using Trainer.Contracts;

namespace Trainer.Worker.Data;

/// <summary>Plain ChatML: every message is one turn, nothing is added.</summary>
internal sealed class ChatmlTemplate(ChatOptions options) : ChatTemplate(TemplateKind.Chatml, options)
{
    protected override bool HasTools => false;

    private protected override void WriteSystem(SegmentWriter writer, Conversation conversation)
    {
        if (conversation.Messages[0].Role == "system")
        {
            WritePlainTurn(writer, conversation.Messages[0]);
        }
    }

    private protected override void WriteAnswer(SegmentWriter writer, IReadOnlyList<Message> messages, int index) =>
        writer.Content(messages[index].Content);
}
