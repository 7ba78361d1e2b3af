namespace Trainer.Worker.Reports;

/// <summary>What a person is told of a write that failed: of a full disk, or a quota that is used up, also the cure.</summary>
internal static class FullDisk
{
    /// <summary>ENOSPC and EDQUOT of Linux.</summary>
    private const int NoSpace = 28, OverQuota = 122;

    public static string Tell(Exception error) =>
        error is IOException { HResult: NoSpace or OverQuota } ? $"{error.Message}; make room there" : error.Message;
}
