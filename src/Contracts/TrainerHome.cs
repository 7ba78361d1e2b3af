using System.Globalization;
using System.Runtime.Versioning;
using System.Text;

namespace Trainer.Contracts;

/// <summary>The folder of all local state: <c>TRAINER_HOME</c>, by default ~/.trainer.</summary>
public sealed record TrainerHome(string Directory)
{
    // sun_path of a Unix socket address holds 108 bytes, the last of them 0.
    private const int MaxSocketPath = 107;

    public string Socket => Path.Combine(Directory, "coordinator.sock");
    public string Database => Path.Combine(Directory, "coordinator.db");
    public string Log => Path.Combine(Directory, "coordinator.log");
    public string Pid => Path.Combine(Directory, "coordinator.pid");

    /// <summary>Held by the coordinator as long as it lives.</summary>
    public string Lock => Path.Combine(Directory, "coordinator.lock");

    /// <summary>Where ranks speak to the worker agent; shorter than <see cref="Socket"/>, so that it fits where that fits.</summary>
    public string AgentSocket => Path.Combine(Directory, "agent.sock");

    /// <summary>Pid and start time of the agent, for ranks that it no longer answers.</summary>
    public string AgentPid => Path.Combine(Directory, "agent.pid");

    /// <summary>Held by the agent as long as it lives.</summary>
    public string AgentLock => Path.Combine(Directory, "agent.lock");

    /// <summary>The port of this machine at which the owner's browser last reached the coordinator.</summary>
    public string DashboardPort => Path.Combine(Directory, "dashboard.port");

    /// <summary>What may be deleted at any time: tokenizers as they were read once.</summary>
    public string Tokenizers => Path.Combine(Directory, "tokenizers");

    public string Jobs => Path.Combine(Directory, "jobs");

    public JobFiles Job(JobId id) => new(Path.Combine(Jobs, id.Value));

    /// <summary>Ranks of any job for which their attempt's folder holds a file of this name, as <see cref="AttemptFiles"/> names files of ranks.</summary>
    public IEnumerable<RankName> RanksWith(string name, string extension = "")
    {
        if (!System.IO.Directory.Exists(Jobs))
        {
            yield break;
        }
        foreach (string file in System.IO.Directory.EnumerateFiles(Jobs, $"{name}*{extension}", new EnumerationOptions { RecurseSubdirectories = true, MaxRecursionDepth = 2 }))
        {
            string attempt = Path.GetDirectoryName(file)!, job = Path.GetDirectoryName(attempt)!, own = Path.GetFileName(file)[..^extension.Length];
            if (Path.GetDirectoryName(job) == Jobs && JobId.TryParse(Path.GetFileName(job), out JobId id)
                && Number(Path.GetFileName(attempt), "attempt-") is { } number && (own == name ? 0 : Number(own, $"{name}-")) is { } rank)
            {
                yield return new RankName(id, number, rank);
            }
        }
    }

    private static int? Number(string text, string prefix) =>
        text.StartsWith(prefix, StringComparison.Ordinal) && int.TryParse(text.AsSpan(prefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : null;

    /// <summary>Makes the folder, for its owner only, when it is not there.</summary>
    /// <exception cref="ConfigException">It cannot be made, or nothing can be written in it.</exception>
    [SupportedOSPlatform("linux")]
    public void Create()
    {
        try
        {
            System.IO.Directory.CreateDirectory(Directory, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            using var probe = new FileStream(Path.Combine(Directory, $".{Guid.NewGuid():N}"), FileMode.CreateNew, FileAccess.Write, FileShare.None, 1, FileOptions.DeleteOnClose);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new ConfigException($"TRAINER_HOME {Directory}: nothing can be written there ({error.Message.TrimEnd('.')}); set TRAINER_HOME to a folder of yours");
        }
    }

    /// <exception cref="ConfigException">The path is too long for a socket.</exception>
    public static TrainerHome FromEnvironment() =>
        At(Environment.GetEnvironmentVariable("TRAINER_HOME") is { Length: > 0 } given
            ? given
            : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".trainer"));

    /// <exception cref="ConfigException">The path is too long for a socket.</exception>
    public static TrainerHome At(string directory)
    {
        var home = new TrainerHome(Path.GetFullPath(directory));
        int length = Encoding.UTF8.GetByteCount(home.Socket);
        return length <= MaxSocketPath
            ? home
            : throw new ConfigException($"TRAINER_HOME {home.Directory}: the path is too long for a Unix socket "
                + $"({length} bytes with coordinator.sock, {MaxSocketPath} fit); set TRAINER_HOME to a shorter path");
    }
}
