using Trainer.Contracts;

namespace Trainer.Cli;

/// <summary>What a shell script can tell apart.</summary>
internal static class ExitCode
{
    public const int Succeeded = 0;

    /// <summary>The job failed or was cancelled.</summary>
    public const int JobFailed = 1;

    /// <summary>Wrong options or configuration.</summary>
    public const int Usage = 2;

    public const int NotFound = 3;
    public const int Unreachable = 4;

    /// <summary>Ctrl-C: the job goes on.</summary>
    public const int Detached = 130;

    public static int Of(JobStatus status) => status is JobStatus.Failed or JobStatus.Cancelled ? JobFailed : Succeeded;
}
