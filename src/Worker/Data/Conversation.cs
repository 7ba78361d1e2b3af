namespace Trainer.Worker.Data;

/// <summary>Turns in order, and the functions that the assistant may call, each as its JSON schema in Python's spelling.</summary>
public sealed record Conversation(IReadOnlyList<Message> Messages, IReadOnlyList<string> Tools)
{
    public Conversation(params IReadOnlyList<Message> messages) : this(messages, [])
    {
    }
}

/// <summary>One turn. Reasoning is the thought before the answer where the data keeps it apart (reasoning_content).</summary>
public sealed record Message(string Role, string Content)
{
    public string? Reasoning { get; init; }
    public IReadOnlyList<ToolCall> ToolCalls { get; init; } = [];
}

/// <summary>
/// A call by the assistant: its arguments as JSON in Python's spelling, and, where the data holds them as a string, that
/// string besides.
/// </summary>
public sealed record ToolCall(string Name, string Arguments, string? ArgumentsText = null);
