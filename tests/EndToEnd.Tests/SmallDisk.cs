using System.Diagnostics;

namespace Trainer.EndToEnd.Tests;

/// <summary>A file system of a few megabytes in place of a folder, which can be filled and emptied.</summary>
internal sealed class SmallDisk : IDisposable
{
    private const long MostToFill = 1L << 30;

    private readonly string _folder;
    private readonly string? _shared;

    private SmallDisk(string folder, string? shared)
    {
        _folder = folder;
        _shared = shared;
    }

    private string Filler => Path.Combine(_folder, "filler");

    /// <summary>
    /// Mounts a tmpfs where that is allowed. Else the folder is put on /dev/shm, which is small in containers, and the test says so.
    /// </summary>
    /// <exception cref="InvalidOperationException">Neither can be done.</exception>
    public static SmallDisk At(string folder, Action<string> say)
    {
        string home = Path.GetDirectoryName(folder)!;
        Directory.CreateDirectory(folder);
        string problem = Run("mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder);
        if (problem.Length == 0)
        {
            return new SmallDisk(folder, null);
        }
        long free = new DriveInfo("/dev/shm").AvailableFreeSpace;
        if (free > MostToFill)
        {
            throw new InvalidOperationException($"a full disk needs a small one: mount refused ({problem}), and /dev/shm is too large to fill ({free >> 20} MiB free); run as root, or in a container with a small /dev/shm");
        }
        say($"mount refused ({problem}): {home} keeps its files on /dev/shm, which has {free >> 20} MiB free");
        string shared = Directory.CreateDirectory($"/dev/shm/{Guid.NewGuid():N}").FullName;
        Directory.Delete(folder);
        Directory.CreateSymbolicLink(folder, shared);
        return new SmallDisk(folder, shared);
    }

    /// <summary>To the last byte.</summary>
    public void Fill()
    {
        byte[] piece = new byte[1 << 16];
        try
        {
            using var file = new FileStream(Filler, FileMode.Create, FileAccess.Write, FileShare.None, bufferSize: 0);
            while (true)
            {
                file.Write(piece);
            }
        }
        catch (IOException)
        {
            // That is what "full" means.
        }
    }

    public void Empty() => File.Delete(Filler);

    public void Dispose()
    {
        if (_shared is null)
        {
            // Those who still have a file open there have just been killed.
            Run("umount", "-l", _folder);
        }
        else
        {
            Directory.Delete(_folder);
            Directory.Delete(_shared, recursive: true);
        }
    }

    /// <returns>Empty when all went well, else why not.</returns>
    private static string Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardError = true })!;
        string error = process.StandardError.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0 ? "" : $"{program}: {error.Trim()}, exit code {process.ExitCode}";
    }
}
