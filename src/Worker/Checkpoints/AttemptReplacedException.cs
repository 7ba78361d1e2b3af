namespace Trainer.Worker.Checkpoints;

/// <summary>A newer attempt of the job has taken over: this process must stop, and the job has not failed.</summary>
public sealed class AttemptReplacedException(string message) : Exception(message);
