namespace Trainer.Worker.Distributed;

/// <summary>The ranks lost each other, or disagree: another attempt may succeed.</summary>
public sealed class CollectiveException(string message, Exception? inner = null) : Exception(message, inner);
