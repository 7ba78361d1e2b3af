namespace Trainer.Worker;

/// <summary>A folder that is there whole or not at all: written under another name beside its place, then renamed.</summary>
public static class NewFolder
{
    public static bool IsTaken(string directory) => Directory.Exists(directory) && Directory.EnumerateFileSystemEntries(directory).Any();

    /// <summary>Why nothing can be written there: tried in the nearest folder that exists, and removed again. Null: it can.</summary>
    public static string? Problem(string directory)
    {
        string existing = Path.GetFullPath(directory);
        while (!Directory.Exists(existing) && !File.Exists(existing))
        {
            existing = Path.GetDirectoryName(existing)!;
        }

        if (File.Exists(existing))
        {
            return $"{existing} is a file; give a directory";
        }

        try
        {
            string trial = Path.Combine(existing, $".trainer-{Guid.NewGuid():N}");
            Directory.CreateDirectory(trial);
            Directory.Delete(trial);
            return null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return $"nothing can be written in {existing} ({e.Message}); give a directory that you may write to";
        }
    }

    /// <param name="directory">Must not exist, or be empty.</param>
    /// <param name="write">Given the folder to write into.</param>
    /// <exception cref="JobInputException">It is not empty.</exception>
    public static async Task WriteAsync(string directory, Func<string, Task> write)
    {
        if (IsTaken(directory))
        {
            throw new JobInputException($"{directory}: is not empty; name another folder or remove it");
        }

        string target = Path.GetFullPath(directory).TrimEnd('/');
        string parent = Path.GetDirectoryName(target)!;
        Directory.CreateDirectory(parent);
        foreach (string leftover in Directory.GetDirectories(parent, $"{Path.GetFileName(target)}.{new string('?', 32)}.tmp"))
        {
            Directory.Delete(leftover, recursive: true);  // its writer was killed
        }

        string temporary = $"{target}.{Guid.NewGuid():N}.tmp";
        Directory.CreateDirectory(temporary);
        try
        {
            await write(temporary);
            if (Directory.Exists(target))
            {
                Directory.Delete(target);
            }

            Directory.Move(temporary, target);
        }
        catch
        {
            Directory.Delete(temporary, recursive: true);
            throw;
        }
    }

    /// <summary>Whether a folder holds every file, byte for byte, that <paramref name="write"/> would write; more may be there.</summary>
    /// <param name="write">Given the folder to write into, which is gone afterwards.</param>
    public static async Task<bool> HoldsAsync(string directory, Func<string, Task> write)
    {
        string other = $"{Path.GetFullPath(directory).TrimEnd('/')}.{Guid.NewGuid():N}.tmp";
        try
        {
            await write(other);
            return Directory.EnumerateFiles(other, "*", SearchOption.AllDirectories).All(file => IsSame(file, Path.Combine(directory, Path.GetRelativePath(other, file))));
        }
        finally
        {
            if (Directory.Exists(other))
            {
                Directory.Delete(other, recursive: true);
            }
        }
    }

    private static bool IsSame(string file, string other)
    {
        if (!File.Exists(other) || new FileInfo(file).Length != new FileInfo(other).Length)
        {
            return false;
        }

        using FileStream left = File.OpenRead(file), right = File.OpenRead(other);
        byte[] x = new byte[1 << 20], y = new byte[1 << 20];
        while (left.ReadAtLeast(x, x.Length, throwOnEndOfStream: false) is var read and > 0)
        {
            right.ReadExactly(y, 0, read);
            if (!x.AsSpan(0, read).SequenceEqual(y.AsSpan(0, read)))
            {
                return false;
            }
        }

        return true;
    }
}
