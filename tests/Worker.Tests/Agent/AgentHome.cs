using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Agent;

namespace Trainer.Worker.Tests.Agent;

/// <summary>A home with an agent, a stub coordinator, and ranks that do what a test writes into their "do" file.</summary>
internal sealed class AgentHome : IAsyncDisposable
{
    private const string Script = """
        #!/bin/sh
        # --job-dir DIR --attempt N --socket PATH --rank R --world-size W --host H --threads T
        cd "$2/attempt-$4" || exit 1
        echo "rank $8 of attempt $4"
        while [ ! -s "do-$8" ]; do sleep 0.02; done
        what=$(cat "do-$8")
        case "$what" in
            SIG*) echo boom >&2; kill -${what#SIG} $$;;
            exit*) echo "cannot go on" >&2; exit ${what#exit};;
            chatter) i=0; while [ $i -lt 20000 ]; do echo "line $i of the log"; i=$((i + 1)); done; echo "last words"; echo "last error" >&2; kill -9 $$;;
            child) sleep 1000 & wait;;
        esac
        result=result.json; [ "$8" = 0 ] || result=result-$8.json
        cp "do-$8" "$result.p" && mv "$result.p" "$result"
        """;

    public AgentHome()
    {
        // Short, because a socket path holds 107 bytes.
        Root = Directory.CreateTempSubdirectory("ta").FullName;
        Home = TrainerHome.At(Path.Combine(Root, "home"));
        Rank = Path.Combine(Root, "rank.sh");
        File.WriteAllText(Rank, Script);
        File.SetUnixFileMode(Rank, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        Coordinator = new StubCoordinator(Path.Combine(Root, "c.sock"));
    }

    public string Root { get; }
    public TrainerHome Home { get; }
    public string Rank { get; }
    public StubCoordinator Coordinator { get; }
    public Worker.Agent.Agent? Agent { get; private set; }

    public AgentOptions Options => new() { Home = Home, Coordinator = Coordinator.Socket, Node = "n1", Slots = 4, RankCommand = [Rank] };

    public async Task StartAsync(Func<AgentOptions, AgentOptions>? change = null) =>
        Agent = await Worker.Agent.Agent.StartAsync((change ?? (options => options))(Options));

    /// <summary>Ends the agent as a kill would for its ranks: they go on.</summary>
    public async Task StopAsync()
    {
        await Agent!.DisposeAsync();
        Agent = null;
    }

    public static RankName Name(string job, int attempt, int rank = 0) => new(new JobId(job), attempt, rank);

    public static RankAssignment Assign(string job, int attempt, int rank = 0, int worldSize = 1) =>
        new() { Name = Name(job, attempt, rank), WorldSize = worldSize, Config = "{\"name\": \"demo\"}" };

    public AttemptFiles Files(RankName name) => Home.Job(name.Job).Attempt(name.Attempt);

    public void Do(RankName name, string what) => File.WriteAllText(Path.Combine(Files(name).Directory, $"do-{name.Rank}"), what);

    public void Do(RankName name, RankOutcome outcome, int step = 3) =>
        Do(name, JsonSerializer.Serialize(new RankResult { Outcome = outcome, Step = step }, ContractsJson.Default.RankResult));

    /// <summary>What the agent last said of a rank, once that holds.</summary>
    public Task<RankState> UntilAsync(RankName name, Func<RankState, bool> holds) =>
        UntilAsync(() => Coordinator.State(name) is { } state && holds(state) ? state : null, () => $"{name}: {Coordinator.State(name)}");

    public Task<RankState> RunningAsync(RankName name) => UntilAsync(name, state => state.Alive && File.Exists(Files(name).StdoutOf(name.Rank)) && new FileInfo(Files(name).StdoutOf(name.Rank)).Length > 0);

    public static Task UntilAsync(Func<bool> holds) => UntilAsync(() => holds() ? "" : null, () => "");

    public static async Task<T> UntilAsync<T>(Func<T?> find, Func<string> what, int seconds = 15)
        where T : class
    {
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            if (find() is { } found)
            {
                return found;
            }
            if (Stopwatch.GetElapsedTime(start).TotalSeconds > seconds)
            {
                throw new TimeoutException(what());
            }
            await Task.Delay(10);
        }
    }

    /// <summary>Processes that are this rank, as /proc knows them; not a child of one, which bears its command line until it becomes `sleep`.</summary>
    public int[] Pids(RankName name) => [.. Directory.EnumerateDirectories("/proc")
        .Select(folder => int.TryParse(Path.GetFileName(folder), CultureInfo.InvariantCulture, out int pid) ? pid : 0)
        .Where(pid => pid > 0 && Read(pid, "cmdline").StartsWith(
            $"/bin/sh\0{Rank}\0--job-dir\0{Home.Job(name.Job).Directory}\0--attempt\0{name.Attempt}\0--socket\0{Home.AgentSocket}\0--rank\0{name.Rank}\0", StringComparison.Ordinal) && LeadsItsSession(pid))];

    public static string Read(int pid, string file)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/{file}");
        }
        catch (IOException)
        {
            return "";
        }
    }

    public static void Signal(int pid, string signal)
    {
        using Process kill = Process.Start("kill", [$"-{signal}", pid.ToString(CultureInfo.InvariantCulture)]);
        kill.WaitForExit();
    }

    private static bool LeadsItsSession(int pid) =>
        Read(pid, "stat") is { Length: > 0 } stat && stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[3] == pid.ToString(CultureInfo.InvariantCulture);

    public async ValueTask DisposeAsync()
    {
        if (Agent is not null)
        {
            await Agent.DisposeAsync();
        }
        await Coordinator.DisposeAsync();
        foreach (FoundRank left in new RankProcesses(Options).Find())
        {
            ProcessTable.Kill(left.Process);
        }
        Directory.Delete(Root, recursive: true);
    }
}
