using Orleans;

namespace Trainer.Contracts;

/// <summary>Persisted by number and sent by name: members are added, never changed.</summary>
[GenerateSerializer, Alias("trainer.job-status")]
public enum JobStatus
{
    /// <summary>Submitted to wait for a resume.</summary>
    Paused = 0,

    /// <summary>Waits for the machine; the reason says for what.</summary>
    Queued = 1,

    /// <summary>The attempt is decided, its rank process may or may not exist.</summary>
    Starting = 2,

    /// <summary>The rank process has been seen.</summary>
    Running = 3,

    /// <summary>Waits between two attempts.</summary>
    Retrying = 4,

    /// <summary>The ranks save a checkpoint and end; the reason says what the job does then.</summary>
    Stopping = 5,

    Succeeded = 10,
    Failed = 11,
    Cancelled = 12,
}

public static class JobStatusExtensions
{
    /// <summary>Nothing happens any more, unless a person resumes the job.</summary>
    public static bool IsTerminal(this JobStatus status) => status is JobStatus.Succeeded or JobStatus.Failed or JobStatus.Cancelled;

    /// <summary>An attempt exists whose rank may write.</summary>
    public static bool HasAttempt(this JobStatus status) => status is JobStatus.Starting or JobStatus.Running or JobStatus.Stopping;
}
