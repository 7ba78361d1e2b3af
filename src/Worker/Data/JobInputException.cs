using System.Text.Json;

namespace Trainer.Worker;

/// <summary>
/// What the user gave cannot be used: the message is one sentence for a person, with file, line and cure. Never retried.
/// </summary>
public sealed class JobInputException : Exception
{
    public JobInputException(string message) : base(message)
    {
    }

    public JobInputException(string message, Exception? inner) : base(message, inner)
    {
    }

    /// <summary>Of a file that came with a model, of which only another copy helps.</summary>
    public static JobInputException MalformedJson(string file, JsonException error) => new(
        error.LineNumber is { } line ? $"{file}:{line + 1}: malformed JSON at byte {error.BytePositionInLine + 1}; download the file again"
            : $"{file}: malformed JSON: {error.Message.TrimEnd('.')}; keep one, or download the file again", error);

    /// <summary><c>file:line: what; the cure</c>, the form in which editors and people find the place.</summary>
    public JobInputException At(string file, long line) => new($"{file}:{line}: {Message}", this);
}
