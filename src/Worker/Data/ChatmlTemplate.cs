using Trainer.Contracts;

namespace Trainer.Worker.Data;

/// <summary>Plain ChatML: every message is one turn, nothing is added but the model's default system message. The first Qwen's, too.</summary>
internal sealed class ChatmlTemplate(ChatOptions options) : ChatTemplate(TemplateKind.Chatml, options)
{
    /// <summary>What the first Qwen's code says to conversations that bring no system message (make_context of qwen_generation_utils.py).</summary>
    public const string FirstQwenSystem = "You are a helpful assistant.";

    protected override bool HasTools => false;

    private protected override void WriteSystem(SegmentWriter writer, Conversation conversation)
    {
        if (conversation.Messages[0].Role == "system")
        {
            WritePlainTurn(writer, conversation.Messages[0]);
        }
        else if (!IsSilent && ModelSystem is { Length: > 0 } system)
        {
            WritePlainTurn(writer, new Message("system", system));
        }
    }

    private protected override void WriteAnswer(SegmentWriter writer, IReadOnlyList<Message> messages, int index) =>
        writer.Content(messages[index].Content);
}
