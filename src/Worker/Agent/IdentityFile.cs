using System.Globalization;
using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>A process, written down for processes to come: pid and start time in a line.</summary>
internal static class IdentityFile
{
    /// <summary>Whole or not at all.</summary>
    /// <exception cref="IOException">The file cannot be written.</exception>
    public static void Write(string path, ProcessIdentity process)
    {
        string partial = path + ".partial";
        File.WriteAllText(partial, FormattableString.Invariant($"{process.Pid} {process.StartTime}\n"));
        File.Move(partial, path, overwrite: true);
    }

    /// <summary>Null when the file is missing or names none.</summary>
    public static ProcessIdentity? Read(string path)
    {
        try
        {
            return File.ReadAllText(path).Split(' ') is [var pid, var start]
                && int.TryParse(pid, CultureInfo.InvariantCulture, out int number) && long.TryParse(start, CultureInfo.InvariantCulture, out long time)
                ? new ProcessIdentity { Pid = number, StartTime = time }
                : null;
        }
        catch (Exception error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
    }
}
