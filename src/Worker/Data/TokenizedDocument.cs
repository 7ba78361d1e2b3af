namespace Trainer.Worker.Data;

/// <summary>
/// A run of text with one fate: whether the model learns to write it, and whether special tokens written in it are
/// recognised or are ordinary text.
/// </summary>
public readonly record struct Segment(string Text, bool Trained, bool AllowSpecial = true);

/// <param name="Ids">int[T]</param>
/// <param name="Trained">bool[T]: the model learns to predict this token from those before it.</param>
public sealed record TokenizedDocument(int[] Ids, bool[] Trained)
{
    /// <summary>Labels that training sees: the first token of a document is never predicted.</summary>
    public int TrainedTokens => Trained.AsSpan(Math.Min(1, Trained.Length)).Count(true);

    public TokenizedDocument Truncate(int length) =>
        Ids.Length <= length ? this : new TokenizedDocument(Ids[..length], Trained[..length]);
}
