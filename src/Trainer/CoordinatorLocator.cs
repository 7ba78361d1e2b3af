using System.Diagnostics;
using Trainer.Contracts;
using Trainer.Worker.Agent;

namespace Trainer.Cli;

/// <summary>
/// The coordinator that commands speak to: the one that TRAINER_COORDINATOR names (with TRAINER_TOKEN), else this user's on this
/// machine, which is found on its socket or started in the background.
/// </summary>
internal sealed class CoordinatorLocator(TrainerHome home, string? address = null, string? token = null)
{
    private static readonly TimeSpan s_startTakes = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan s_often = TimeSpan.FromMilliseconds(50);

    public TrainerHome Home { get; } = home;

    public bool IsRemote => address is not null;

    /// <summary>What TRAINER_COORDINATOR names, when that is a URL.</summary>
    public string? Address => address?.Contains("://", StringComparison.Ordinal) == true ? address : null;

    public static CoordinatorLocator FromEnvironment() => new(
        TrainerHome.FromEnvironment(),
        Environment.GetEnvironmentVariable("TRAINER_COORDINATOR") is { Length: > 0 } named ? named : null,
        Environment.GetEnvironmentVariable("TRAINER_TOKEN"));

    /// <summary>Where the job's files are on this machine; null when they are elsewhere.</summary>
    public JobFiles? FilesOf(JobView job) => IsRemote ? null : new JobFiles(job.Directory);

    /// <summary>A client of the running coordinator; starts one when none answers.</summary>
    /// <exception cref="CoordinatorException">It does not start.</exception>
    public async Task<CoordinatorClient> ConnectAsync(CancellationToken cancellationToken) =>
        IsRemote ? CoordinatorClient.At(address!, token) : await FindAsync(cancellationToken) ?? await StartAsync(cancellationToken);

    /// <summary>Null when none answers.</summary>
    public async Task<CoordinatorClient?> FindAsync(CancellationToken cancellationToken)
    {
        if (IsRemote)
        {
            return CoordinatorClient.At(address!, token);
        }
        if (!File.Exists(Home.Socket))
        {
            return null;
        }
        var client = new CoordinatorClient(Home.Socket);
        try
        {
            await client.InfoAsync(cancellationToken);
            return client;
        }
        catch (CoordinatorException error) when (error.InnerException is HttpRequestException)
        {
            client.Dispose();
            return null;
        }
    }

    private async Task<CoordinatorClient> StartAsync(CancellationToken cancellationToken)
    {
        Home.Create();
        using FileStream turn = await TakeTurnAsync(cancellationToken);
        if (await FindAsync(cancellationToken) is { } running)
        {
            return running;
        }
        await Console.Error.WriteLineAsync($"starting a coordinator in the background ({Home.Directory}; \"trainer stop\" ends it)");
        ProcessIdentity process = DetachedProcess.Start(DetachedProcess.Self("serve"), Home.Log, Home.Log, Home.Directory,
            new Dictionary<string, string?> { ["TRAINER_HOME"] = Home.Directory });
        long start = Stopwatch.GetTimestamp();
        while (Stopwatch.GetElapsedTime(start) < s_startTakes)
        {
            if (await FindAsync(cancellationToken) is { } client)
            {
                return client;
            }
            if (!DetachedProcess.IsAlive(process))
            {
                string words = string.Join(Environment.NewLine, LastWords());
                throw new CoordinatorException(null, words.Length == 0
                    ? $"the coordinator did not start, and its log {Home.Log} is empty; see that there is room in {Home.Directory}"
                    : $"the coordinator did not start; its last words in {Home.Log}:{Environment.NewLine}{words}");
            }
            await Task.Delay(s_often, cancellationToken);
        }
        throw new CoordinatorException(null, $"the coordinator did not answer within {s_startTakes.TotalSeconds:0} s; its log is {Home.Log}");
    }

    /// <summary>What the coordinator wrote when it ended: after its log's last line, which begins with the time, and without its stack.</summary>
    private string[] LastWords()
    {
        string[] lines = [.. File.ReadLines(Home.Log).Where(line => !line.StartsWith("   at ", StringComparison.Ordinal)).TakeLast(5)];
        string[] words = [.. lines.AsEnumerable().Reverse().TakeWhile(line => line.Length == 0 || !char.IsAsciiDigit(line[0])).Reverse()];
        return words.Length > 0 ? words : lines;
    }

    /// <summary>One starter at a time.</summary>
    private async Task<FileStream> TakeTurnAsync(CancellationToken cancellationToken)
    {
        string path = Path.Combine(Home.Directory, "coordinator.start");
        while (true)
        {
            try
            {
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException) when (File.Exists(path))
            {
                await Task.Delay(s_often, cancellationToken);
            }
        }
    }
}
