using System.Runtime.InteropServices;

namespace Trainer.Worker.Checkpoints;

/// <summary>The two file system calls of a crash-safe store that .NET does not have.</summary>
internal static partial class PosixFile
{
    private const int ReadOnly = 0;
    private const int FileExists = 17;

    /// <summary>Makes created, renamed and removed names in a directory durable.</summary>
    public static void SyncDirectory(string directory)
    {
        int descriptor = open(directory, ReadOnly);
        if (descriptor < 0)
        {
            throw Failure("open", directory);
        }

        try
        {
            if (fsync(descriptor) != 0)
            {
                throw Failure("fsync", directory);
            }
        }
        finally
        {
            _ = close(descriptor);
        }
    }

    /// <summary>Gives an existing file a second name; false when that name is taken. Atomic.</summary>
    public static bool TryLink(string existing, string name)
    {
        if (link(existing, name) == 0)
        {
            return true;
        }

        return Marshal.GetLastPInvokeError() == FileExists ? false : throw Failure("link", name);
    }

    private static IOException Failure(string call, string path) =>
        new($"{path}: {call}: {Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError())}");

    [LibraryImport("libc", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    private static partial int open(string path, int flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int fsync(int descriptor);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int close(int descriptor);

    [LibraryImport("libc", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    private static partial int link(string existing, string name);
}
