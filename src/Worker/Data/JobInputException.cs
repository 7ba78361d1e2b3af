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

    /// <summary><c>file:line: what; the cure</c>, the form in which editors and people find the place.</summary>
    public JobInputException At(string file, long line) => new($"{file}:{line}: {Message}", this);
}
