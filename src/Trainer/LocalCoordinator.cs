using System.Diagnostics;
using Trainer.Contracts;
using Trainer.Worker.Agent;

namespace Trainer.Cli;

/// <summary>The coordinator of this user on this machine: found on its socket, or started in the background.</summary>
internal sealed class LocalCoordinator(TrainerHome home)
{
    private static readonly TimeSpan s_startTakes = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan s_often = TimeSpan.FromMilliseconds(50);

    public TrainerHome Home { get; } = home;

    public static LocalCoordinator FromEnvironment() => new(TrainerHome.FromEnvironment());

    /// <summary>A client of the running coordinator; starts one when none answers.</summary>
    /// <exception cref="CoordinatorException">It does not start.</exception>
    public async Task<CoordinatorClient> ConnectAsync(CancellationToken cancellationToken) =>
        await FindAsync(cancellationToken) ?? await StartAsync(cancellationToken);

    /// <summary>Null when none answers.</summary>
    public async Task<CoordinatorClient?> FindAsync(CancellationToken cancellationToken)
    {
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
        Directory.CreateDirectory(Home.Directory, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
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
                throw new CoordinatorException(null, $"the coordinator did not start; the end of {Home.Log}:{Environment.NewLine}"
                    + string.Join(Environment.NewLine, File.ReadLines(Home.Log).TakeLast(5)));
            }
            await Task.Delay(s_often, cancellationToken);
        }
        throw new CoordinatorException(null, $"the coordinator did not answer within {s_startTakes.TotalSeconds:0} s; its log is {Home.Log}");
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
