namespace Trainer.Worker.Data;

/// <summary>One line of a data set: a conversation, or plain text that is trained as it stands.</summary>
public sealed record Document(string File, int Line, Conversation? Conversation, string? Text);
