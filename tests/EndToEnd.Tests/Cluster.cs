using System.Globalization;
using Trainer.Contracts;

namespace Trainer.EndToEnd.Tests;

/// <summary>
/// A coordinator and worker agents as real processes on loopback, each with a home of its own, each agent with a network link of its
/// own. Ends with all of them.
/// </summary>
internal sealed class Cluster : IDisposable
{
    private readonly Dictionary<string, TrainerProgram> _programs = [];
    private readonly Dictionary<string, NetworkLink> _links = [];
    private readonly int _port = FreePort.Take();
    private readonly string _url;

    public Cluster()
    {
        Place = new Workplace();
        _url = $"http://127.0.0.1:{_port.ToString(CultureInfo.InvariantCulture)}";
        Store = Place.PathOf("store");
        Place.Environment["TRAINER_COORDINATOR"] = _url;
    }

    public Workplace Place { get; }

    public TrainerHome CoordinatorHome => new(Path.Combine(Place.Folder, "c"));

    /// <summary>Where checkpoints go; a folder unless it is set.</summary>
    public string Store { get; set; }

    public TrainerHome HomeOf(string node) => new(Path.Combine(Place.Folder, node));

    /// <summary>Starts a coordinator and agents named w1, w2, ... with so many CPU slots each.</summary>
    public async Task StartAsync(int agents, int slots)
    {
        string tokens = Place.PathOf("tokens.json");
        Place.Environment["TRAINER_TOKEN"] = (await Place.DoAsync("token", "--role", "admin", "--file", tokens)).Trim();
        StartCoordinator();
        for (int i = 1; i <= agents; i++)
        {
            StartAgent($"w{i}", slots);
        }
        await UntilAsync(async () => (await NodesAsync()).Count(node => node.State == "ready") == agents, "all agents");
    }

    public void StartCoordinator() => Start("c", ["serve", "--no-worker", "--listen", _url, "--tokens", Place.PathOf("tokens.json")]);

    public void StartAgent(string node, int slots)
    {
        if (!_links.TryGetValue(node, out NetworkLink? link))
        {
            _links[node] = link = new NetworkLink(_port);
        }
        Start(node, ["worker", "--name", node, "--slots", slots.ToString(CultureInfo.InvariantCulture)], link.Url);
    }

    /// <summary>Between an agent and the coordinator.</summary>
    public NetworkLink LinkOf(string node) => _links[node];

    public int PidOf(string name) => _programs[name].Pid;

    public void Kill(string name)
    {
        LinuxProcesses.Signal(PidOf(name), LinuxProcesses.Kill);
        _programs.Remove(name, out TrainerProgram? ended);
        ended!.Dispose();
    }

    /// <summary>Ranks of the newest attempt of a node, by rank.</summary>
    public SortedDictionary<int, int> Ranks(string node)
    {
        var ranks = new SortedDictionary<int, int>();
        foreach (int pid in LinuxProcesses.WithVariable("TRAINER_HOME", HomeOf(node).Directory))
        {
            // One that waits to become a rank has spaces there.
            if (int.TryParse(LinuxProcesses.Variable(pid, "TRAINER_RANK"), NumberStyles.None, CultureInfo.InvariantCulture, out int rank)
                && !LinuxProcesses.CommandLine(pid).StartsWith("/bin/sh", StringComparison.Ordinal))
            {
                ranks[rank] = pid;
            }
        }
        return ranks;
    }

    public async Task<JobView> SubmitAsync(params string[] options) =>
        await Place.SubmitAsync(["--set", $"checkpoint.store={Store}", .. options]);

    /// <summary>Empty while no coordinator answers.</summary>
    public async Task<NodeView[]> NodesAsync() => [.. (await AskAsync(client => client.NodesAsync()))?.Nodes ?? []];

    public Task<JobView> UntilStepAsync(int step) => UntilJobAsync(job => job.Step >= step, $"step {step}");

    public async Task<JobView> UntilJobAsync(Func<JobView, bool> holds, string what)
    {
        JobView? job = null;
        await UntilAsync(async () =>
        {
            job = await AskAsync(client => client.GetAsync("tiny"));
            return job is not null && (holds(job) || job.Status.IsTerminal());
        }, what);
        Assert.True(holds(job!), $"{what}: {job!.Status} {job.Reason}\n{string.Join('\n', job.History.Select(entry => entry.Text))}");
        return job!;
    }

    public static async Task UntilAsync(Func<Task<bool>> condition, string what)
    {
        using var limit = new CancellationTokenSource(TrainerProgram.Patience);
        try
        {
            while (!await condition())
            {
                await Task.Delay(100, limit.Token);
            }
        }
        catch (OperationCanceledException)
        {
            throw new TimeoutException($"waited {TrainerProgram.Patience} for {what}");
        }
    }

    /// <summary>Kills all of them.</summary>
    public void EndProcesses()
    {
        foreach (TrainerProgram program in _programs.Values)
        {
            LinuxProcesses.Signal(program.Pid, LinuxProcesses.Kill);
            program.Dispose();
        }
        _programs.Clear();
        foreach (string folder in Directory.GetDirectories(Place.Folder))
        {
            while (LinuxProcesses.WithVariable("TRAINER_HOME", folder) is { Length: > 0 } left)
            {
                foreach (int pid in left)
                {
                    LinuxProcesses.Signal(pid, LinuxProcesses.Kill);
                }
            }
        }
    }

    public void Dispose()
    {
        EndProcesses();
        foreach (NetworkLink link in _links.Values)
        {
            link.Dispose();
        }
        Place.Dispose();
    }

    private void Start(string name, string[] arguments, string? coordinator = null)
    {
        string home = Path.Combine(Place.Folder, name);
        Directory.CreateDirectory(home);
        _programs[name] = TrainerProgram.Start(Place.Folder, new Dictionary<string, string>(Place.Environment)
        {
            ["TRAINER_HOME"] = home,
            ["TRAINER_COORDINATOR"] = coordinator ?? _url,
        }, arguments);
    }

    /// <summary>Null when nobody answers. In this process: a command a moment would take the CPU from the ranks.</summary>
    private async Task<T?> AskAsync<T>(Func<CoordinatorClient, Task<T>> ask)
        where T : class
    {
        using CoordinatorClient client = CoordinatorClient.At(_url, Place.Environment["TRAINER_TOKEN"], TimeSpan.FromSeconds(5));
        try
        {
            return await ask(client);
        }
        catch (CoordinatorException error) when (error.Status is null)
        {
            return null;
        }
    }
}
