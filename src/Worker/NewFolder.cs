namespace Trainer.Worker;

/// <summary>A folder that is there whole or not at all: written under another name beside its place, then renamed.</summary>
internal static class NewFolder
{
    /// <param name="directory">Must not exist, or be empty.</param>
    /// <param name="write">Given the folder to write into.</param>
    /// <exception cref="JobInputException">It is not empty.</exception>
    public static async Task WriteAsync(string directory, Func<string, Task> write)
    {
        if (Directory.Exists(directory) && Directory.EnumerateFileSystemEntries(directory).Any())
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
}
