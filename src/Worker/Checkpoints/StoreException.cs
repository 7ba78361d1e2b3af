namespace Trainer.Worker.Checkpoints;

/// <summary>A store that cannot be reached or refuses, after retries: infrastructure, not the user's input.</summary>
public sealed class StoreException(string message, Exception inner) : IOException(message, inner);
