using System.Globalization;
using System.Text.Json;
using Trainer.Contracts;
using Trainer.EndToEnd.Tests;
using Trainer.Coordinator;
using Trainer.Worker.Agent;

namespace Coordinator.Tests;

/// <summary>A TRAINER_HOME with a job file, and a rank that does what a test writes into its "do" file.</summary>
public sealed class TestHome : IDisposable
{
    private const string Script = """
        #!/bin/sh
        # --job-dir DIR --attempt N --socket PATH
        cd "$2/attempt-$4" || exit 1
        echo "rank of attempt $4"
        while [ ! -s do ]; do [ -d "$2" ] || exit 1; sleep 0.02; done
        if [ "$(cat do)" = crash ]; then echo boom >&2; kill -9 $$; fi
        cp do result.partial && mv result.partial result.json
        """;

    public TestHome()
    {
        // Short, because a socket path holds 107 bytes.
        Root = Directory.CreateTempSubdirectory("tr").FullName;
        Home = TrainerHome.At(Path.Combine(Root, "home"));
        Rank = Path.Combine(Root, "rank.sh");
        File.WriteAllText(Rank, Script);
        File.SetUnixFileMode(Rank, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        TinyJob.Write(Root);
        JobFile = Path.Combine(Root, "job.yaml");
        File.WriteAllText(JobFile, TinyJob.Yaml.Replace("name: tiny", "name: demo", StringComparison.Ordinal));
    }

    public string Root { get; }
    public TrainerHome Home { get; }
    public string Rank { get; }
    public string JobFile { get; }

    public JobConfig Job(string name = "demo", int priority = 0) =>
        JobConfigFile.Load(JobFile, [$"name={name}", $"priority={priority.ToString(CultureInfo.InvariantCulture)}"]);

    /// <summary>A coordinator with an agent for this machine, as "trainer serve" runs them.</summary>
    public async Task<TestCoordinator> StartAsync(TimeSpan? silence = null)
    {
        CoordinatorHost host = await CoordinatorHost.StartAsync(Home, new CoordinatorOptions
        {
            Poll = TimeSpan.FromMilliseconds(30),
            QueuedPoll = TimeSpan.FromMilliseconds(200),
            Silence = silence ?? TimeSpan.FromSeconds(60),
        });
        var agent = new AgentOptions
        {
            Home = Home, Coordinator = Home.Socket, Node = "local", RankCommand = [Rank], Period = TimeSpan.FromMilliseconds(100),
        };
        return new TestCoordinator(host, await Agent.StartAsync(agent));
    }

    public void Do(JobId job, int attempt, RankOutcome outcome, FailureClass? kind = null, string? message = null, int step = 3)
    {
        var result = new RankResult { Outcome = outcome, FailureClass = kind, Message = message, Step = step };
        Do(job, attempt, JsonSerializer.Serialize(result, ContractsJson.Default.RankResult));
    }

    public void Do(JobId job, int attempt, string what) =>
        File.WriteAllText(Path.Combine(Home.Job(job).Attempt(attempt).Directory, "do"), what);

    public static async Task<JobView> UntilAsync(CoordinatorClient client, JobId job, Func<JobView, bool> holds)
    {
        JobView? view = null;
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        try
        {
            while (true)
            {
                view = await client.GetAsync(job.Value, limit.Token);
                if (holds(view))
                {
                    return view;
                }
                await Task.Delay(20, limit.Token);
            }
        }
        catch (OperationCanceledException)
        {
            throw new TimeoutException($"{job} is {view?.Status}, attempt {view?.Attempt}: {view?.Reason}");
        }
    }

    public static Task<JobView> UntilAsync(CoordinatorClient client, JobId job, JobStatus status, int attempt) =>
        UntilAsync(client, job, view => view.Status == status && view.Attempt == attempt);

    /// <summary>Waits until exactly one process runs this attempt: it takes a moment from fork to exec.</summary>
    public async Task<int> PidAsync(JobId job, int attempt)
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(10));
        while (true)
        {
            if (Pids(job, attempt) is [var pid])
            {
                return pid;
            }
            await Task.Delay(20, limit.Token);
        }
    }

    /// <summary>Processes of an attempt, as /proc knows them; not what a rank has just forked, which has its name until it is something else.</summary>
    public int[] Pids(JobId job, int attempt)
    {
        int[] named = [.. Directory.EnumerateDirectories("/proc")
            .Select(folder => int.TryParse(Path.GetFileName(folder), CultureInfo.InvariantCulture, out int pid) ? pid : 0)
            .Where(pid => pid > 0 && CommandOf(pid).StartsWith($"/bin/sh\0{Rank}\0--job-dir\0{Home.Job(job).Directory}\0--attempt\0{attempt}\0", StringComparison.Ordinal))];
        return [.. named.Where(pid => !named.Contains(ParentOf(pid)))];
    }

    /// <summary>Ranks that a test left behind end by themselves when their folder is gone.</summary>
    public void Dispose()
    {
        try
        {
            Directory.Delete(Root, recursive: true);
        }
        catch (IOException)
        {
            // One of them has just written something.
            Directory.Delete(Root, recursive: true);
        }
    }

    private static int ParentOf(int pid)
    {
        try
        {
            // "pid (name) state parent ...": the name may hold anything.
            string stat = File.ReadAllText($"/proc/{pid}/stat");
            return int.Parse(stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[1], CultureInfo.InvariantCulture);
        }
        catch (IOException)
        {
            return 0;
        }
    }

    private static string CommandOf(int pid)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/cmdline");
        }
        catch (IOException)
        {
            return "";
        }
    }
}

public sealed class TestCoordinator(CoordinatorHost host, Agent agent) : IAsyncDisposable
{
    public CoordinatorHost Host => host;

    public async ValueTask DisposeAsync()
    {
        await agent.DisposeAsync();
        await host.DisposeAsync();
    }
}
