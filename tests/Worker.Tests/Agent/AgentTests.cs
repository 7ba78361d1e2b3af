using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using Trainer.Contracts;
using Trainer.Worker.Agent;

namespace Trainer.Worker.Tests.Agent;

public sealed class AgentTests : IAsyncLifetime
{
    /// <summary>Seconds: less than the 5 in which a dead rank has to be known, more than a busy machine may stand still.</summary>
    private const double AtOnce = 3;

    private static readonly RankName s_demo = AgentHome.Name("demo-abcd", 1);

    private readonly AgentHome _home = new();

    private StubCoordinator Coordinator => _home.Coordinator;

    public Task InitializeAsync() => Coordinator.StartAsync();

    public async Task DisposeAsync() => await _home.DisposeAsync();

    [Fact]
    public async Task A_rank_is_started_once_with_its_config_and_its_end_is_reported()
    {
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync();
        RankState running = await _home.RunningAsync(s_demo);

        int pid = Assert.Single(_home.Pids(s_demo));
        Assert.Equal(pid, running.Process!.Pid);
        Assert.Equal("{\"name\": \"demo\"}", await File.ReadAllTextAsync(_home.Home.Job(s_demo.Job).Config));
        Assert.Equal("500", AgentHome.Read(pid, "oom_score_adj").Trim());
        Assert.Matches(@"Max core file size\s+0\s", AgentHome.Read(pid, "limits"));
        Assert.Contains("\0TRAINER_RANK=0\0", AgentHome.Read(pid, "environ"), StringComparison.Ordinal);
        Assert.Contains($"\0--threads\0{Math.Max(1, Environment.ProcessorCount / 4)}\0", AgentHome.Read(pid, "cmdline"), StringComparison.Ordinal);
        NodeReport report = Coordinator.Last!;
        Assert.Equal(("n1", 4, SlotKind.Cpu, false, NodeReport.CurrentContract), (report.Node, report.Slots, report.Kind, report.Draining, report.Contract));

        _home.Do(s_demo, RankOutcome.Succeeded, step: 7);
        RankState ended = await _home.UntilAsync(s_demo, state => !state.Alive);

        Assert.Equal((RankOutcome.Succeeded, 7, null), (ended.Result!.Outcome, ended.Result.Step, ended.LastWords));
        await Task.Delay(500);
        Assert.Empty(_home.Pids(s_demo));
        Coordinator.Order();
        await AgentHome.UntilAsync(() => Coordinator.Last!.Ranks.IsEmpty);
    }

    [Theory]
    [InlineData("SIGKILL", "killed by SIGKILL; its last words: boom")]
    [InlineData("SIGSEGV", "killed by SIGSEGV; its last words: boom")]
    [InlineData("SIGABRT", "killed by SIGABRT; its last words: boom")]
    [InlineData("SIGILL", "killed by SIGILL; its last words: boom")]
    [InlineData("SIGBUS", "killed by SIGBUS; its last words: boom")]
    [InlineData("exit3", "exited with code 3 without a result; its last words: cannot go on")]
    public async Task A_dead_rank_is_reported_at_once_with_how_it_ended(string how, string words)
    {
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync();
        await _home.RunningAsync(s_demo);

        _home.Do(s_demo, how);
        await AgentHome.UntilAsync(() => _home.Pids(s_demo).Length == 0);
        long start = Stopwatch.GetTimestamp();
        RankState ended = await _home.UntilAsync(s_demo, state => !state.Alive);

        Assert.InRange(Stopwatch.GetElapsedTime(start).TotalSeconds, 0, AtOnce);
        Assert.Equal((words, null), (ended.LastWords, ended.Result));
    }

    [Fact]
    public async Task An_agent_that_starts_again_finds_its_ranks_and_does_not_disturb_them()
    {
        RankAssignment[] both = [AgentHome.Assign("demo-abcd", 1, 0, 2), AgentHome.Assign("demo-abcd", 1, 1, 2)];
        RankName second = both[1].Name;
        Coordinator.Order(both);
        await _home.StartAsync();
        RankState before = await _home.RunningAsync(s_demo);
        await _home.RunningAsync(second);

        await _home.StopAsync();
        await Coordinator.StopAsync();
        Coordinator.Reports.Clear();
        _home.Do(second, "SIGKILL");
        await AgentHome.UntilAsync(() => _home.Pids(second).Length == 0);
        await _home.StartAsync();
        // Without orders, whatever runs runs on, and ranks are not fenced.
        await Task.Delay(600);
        Assert.Equal(RankOrder.Continue, (await HeartbeatAsync(s_demo)).Order);
        await Coordinator.StartAsync();
        RankState after = await _home.UntilAsync(s_demo, state => state.Alive);
        RankState gone = await _home.UntilAsync(second, state => !state.Alive);

        Assert.Equal(before.Process, after.Process);
        Assert.Equal([before.Process!.Pid], _home.Pids(s_demo));
        Assert.Equal("its process is gone; its last words: boom", gone.LastWords);
        Assert.NotNull(gone.Process);
        Assert.Empty(_home.Pids(second));
        long start = Stopwatch.GetTimestamp();
        _home.Do(s_demo, "SIGSEGV");
        Assert.StartsWith("its process is gone", (await _home.UntilAsync(s_demo, state => !state.Alive)).LastWords, StringComparison.Ordinal);
        Assert.InRange(Stopwatch.GetElapsedTime(start).TotalSeconds, 0, AtOnce);
    }

    [Fact]
    public async Task What_is_not_wanted_is_killed_with_its_children_also_after_a_restart()
    {
        RankName other = AgentHome.Name("other-abcd", 4);
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1), AgentHome.Assign("other-abcd", 4));
        await _home.StartAsync();
        await _home.RunningAsync(s_demo);
        RankState kept = await _home.RunningAsync(other);
        _home.Do(s_demo, "child");
        await AgentHome.UntilAsync(() => Children(s_demo).Length == 2);
        int[] children = Children(s_demo);

        Coordinator.Order(AgentHome.Assign("other-abcd", 4));
        await AgentHome.UntilAsync(() => Coordinator.State(s_demo) is null);

        // It stays in the reports until it is really gone.
        Assert.All(children, pid => Assert.Null(DetachedProcess.Find(pid)));
        Assert.Equal([kept.Process!.Pid], _home.Pids(other));
        await _home.StopAsync();
        Coordinator.Order();
        await _home.StartAsync();
        await AgentHome.UntilAsync(() => _home.Pids(other).Length == 0);
    }

    [Fact]
    public async Task A_rank_that_nobody_claims_yet_goes_on_and_is_not_started()
    {
        RankName absent = AgentHome.Name("absent-abcd", 1);
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync();
        RankState before = await _home.RunningAsync(s_demo);

        Coordinator.Order(new RankAssignment { Name = s_demo, WorldSize = 0 }, new RankAssignment { Name = absent, WorldSize = 0, Config = "{}" });
        int seen = Coordinator.Reports.Count;
        await AgentHome.UntilAsync(() => Coordinator.Reports.Count > seen + 2);

        Assert.Equal([before.Process!.Pid], _home.Pids(s_demo));
        Assert.Null(Coordinator.State(absent));
        Assert.Equal(RankOrder.Continue, (await HeartbeatAsync(s_demo)).Order);
    }

    [Fact]
    public async Task An_older_attempt_is_gone_before_the_next_starts_and_never_comes_back()
    {
        RankName next = AgentHome.Name("demo-abcd", 2);
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync();
        await _home.RunningAsync(s_demo);

        Coordinator.Order(AgentHome.Assign("demo-abcd", 1), AgentHome.Assign("demo-abcd", 2));
        await _home.RunningAsync(next);
        Assert.Empty(_home.Pids(s_demo));
        Assert.Equal(RankOrder.Fenced, (await HeartbeatAsync(s_demo)).Order);
        Assert.Equal(RankOrder.Continue, (await HeartbeatAsync(next)).Order);
        Assert.Equal("attempt 2 of the job was ordered here", (await _home.UntilAsync(s_demo, state => !state.Alive)).LastWords);

        await _home.StopAsync();
        await _home.StartAsync();
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1, 1, 2));
        await _home.UntilAsync(AgentHome.Name("demo-abcd", 1, 1), state => !state.Alive);
        Assert.Empty(_home.Pids(AgentHome.Name("demo-abcd", 1, 1)));
        await AgentHome.UntilAsync(() => _home.Pids(next).Length == 0);
    }

    [Fact]
    public async Task A_coordinator_that_is_away_changes_nothing()
    {
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1) with { Order = RankOrder.Continue, Rendezvous = "h:1" });
        await _home.StartAsync();
        RankState before = await _home.RunningAsync(s_demo);
        await HeartbeatAsync(s_demo, step: 5);

        await Coordinator.StopAsync();
        Coordinator.Reports.Clear();
        await Task.Delay(3000);
        RankReply reply = await HeartbeatAsync(s_demo, step: 6);
        long start = Stopwatch.GetTimestamp();
        await Coordinator.StartAsync();
        RankState after = await _home.UntilAsync(s_demo, state => state.Alive);

        Assert.Equal((RankOrder.Continue, "h:1"), (reply.Order, reply.Rendezvous));
        Assert.Equal((before.Process, 6), (after.Process, after.Report!.Step));
        Assert.Equal([before.Process!.Pid], _home.Pids(s_demo));
        Assert.InRange(Stopwatch.GetElapsedTime(start).TotalSeconds, 0, AtOnce);
    }

    [Fact]
    public async Task Reports_and_orders_pass_through_the_agent_at_once()
    {
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync(options => options with { Period = TimeSpan.FromSeconds(30), Token = "secret" });
        await _home.RunningAsync(s_demo);

        long start = Stopwatch.GetTimestamp();
        await HeartbeatAsync(s_demo, endpoint: "h:4711");
        RankState state = await _home.UntilAsync(s_demo, state => state.Report?.Endpoint is not null);

        Assert.InRange(Stopwatch.GetElapsedTime(start).TotalSeconds, 0, AtOnce);
        Assert.Equal(("h:4711", "all-reduce"), (state.Report!.Endpoint, state.Report.Activity));
        Assert.InRange(state.SilentSeconds, 0, AtOnce);
        start = Stopwatch.GetTimestamp();
        Coordinator.Order();
        Coordinator.Tell();
        await AgentHome.UntilAsync(() => _home.Pids(s_demo).Length == 0);
        Assert.InRange(Stopwatch.GetElapsedTime(start).TotalSeconds, 0, AtOnce);
        Assert.Equal("Bearer secret", Coordinator.Authorization);
        Assert.DoesNotContain("secret", _home.Options.ToString(), StringComparison.Ordinal);
        Assert.True(File.GetUnixFileMode(_home.Home.AgentSocket) == (UnixFileMode.UserRead | UnixFileMode.UserWrite));
    }

    [Fact]
    public async Task Silence_and_standing_still_are_told_apart()
    {
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync();
        await _home.RunningAsync(s_demo);
        long start = Stopwatch.GetTimestamp();
        await HeartbeatAsync(s_demo, ticks: 1);
        await Task.Delay(700);
        await HeartbeatAsync(s_demo, ticks: 1);
        double between = Stopwatch.GetElapsedTime(start).TotalSeconds;

        RankState state = await _home.UntilAsync(s_demo, state => state.StillSeconds > 1.2);
        Assert.InRange(state.StillSeconds - state.SilentSeconds, 0.6, between);
        start = Stopwatch.GetTimestamp();
        await HeartbeatAsync(s_demo, ticks: 2);
        // Counted from the heartbeat on, however long this machine took to tell.
        RankState moved = await _home.UntilAsync(s_demo, state => state.Report!.Ticks == 2);
        Assert.InRange(moved.StillSeconds, 0, Stopwatch.GetElapsedTime(start).TotalSeconds);
    }

    [Fact]
    public async Task Draining_waits_until_the_ranks_have_stopped()
    {
        RankAssignment assignment = AgentHome.Assign("demo-abcd", 1);
        Coordinator.Decide = report => new NodeOrders { Ranks = [assignment with { Order = report.Draining ? RankOrder.Stop : RankOrder.Continue }] };
        await _home.StartAsync();
        await _home.RunningAsync(s_demo);

        Task<bool> drained = _home.Agent!.DrainAsync(TimeSpan.FromSeconds(20));
        await AgentHome.UntilAsync(() => Coordinator.Last!.Draining);
        RankReply? reply = null;
        await AgentHome.UntilAsync(() => (reply = HeartbeatAsync(s_demo).GetAwaiter().GetResult()).Order == RankOrder.Stop);
        Assert.False(drained.IsCompleted);
        _home.Do(s_demo, RankOutcome.Cancelled, step: 9);

        Assert.True(await drained);
        Assert.Equal((false, RankOutcome.Cancelled, 9), (Coordinator.State(s_demo)!.Alive, Coordinator.State(s_demo)!.Result!.Outcome, Coordinator.State(s_demo)!.Result!.Step));
    }

    [Fact]
    public async Task Without_a_coordinator_an_agent_that_is_to_end_asks_its_ranks_itself()
    {
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync();
        await _home.RunningAsync(s_demo);
        Coordinator.Status = 503;

        Task<bool> drained = _home.Agent!.DrainAsync(TimeSpan.FromSeconds(60));
        Assert.Equal(RankOrder.Continue, (await HeartbeatAsync(s_demo)).Order);
        await AgentHome.UntilAsync(() => HeartbeatAsync(s_demo).GetAwaiter().GetResult().Order == RankOrder.Stop ? "" : null, () => "the order to stop", seconds: 40);
        Assert.False(drained.IsCompleted);
        _home.Do(s_demo, RankOutcome.Cancelled, step: 9);
        Assert.True(await drained);
    }

    [Fact]
    public async Task What_does_not_stop_in_time_is_killed_and_said_so()
    {
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync();
        await _home.RunningAsync(s_demo);

        Assert.False(await _home.Agent!.DrainAsync(TimeSpan.FromSeconds(1)));

        Assert.Empty(_home.Pids(s_demo));
        Assert.Equal("killed by its agent: the node was drained, and the rank had not stopped after 1 s", Coordinator.State(s_demo)!.LastWords);
    }

    [Fact]
    public async Task Stacks_of_a_hung_rank_are_written_before_it_is_killed()
    {
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync();
        RankState running = await _home.RunningAsync(s_demo);
        await HeartbeatAsync(s_demo);
        AgentHome.Signal(running.Process!.Pid, "STOP");

        Coordinator.Order(AgentHome.Assign("demo-abcd", 1) with { TakeStacks = true });
        RankState taken = await _home.UntilAsync(s_demo, state => state.StacksTaken);
        Assert.True(taken.Alive);
        Coordinator.Order();
        await AgentHome.UntilAsync(() => Coordinator.State(s_demo) is null);

        Assert.Empty(_home.Pids(s_demo));
        string stacks = await File.ReadAllTextAsync(_home.Files(s_demo).StacksOf(0));
        Assert.Contains("activity: all-reduce", stacks, StringComparison.Ordinal);
        Assert.Contains($"thread {running.Process.Pid} ", stacks, StringComparison.Ordinal);
        Assert.True(stacks.Contains("state T (stopped)", StringComparison.Ordinal), stacks);
    }

    [Theory]
    [InlineData(409, "give this one another --name")]
    [InlineData(426, "install the coordinator's trainer version on this machine")]
    [InlineData(401, "set TRAINER_TOKEN")]
    [InlineData(403, "set TRAINER_TOKEN")]
    public async Task A_coordinator_that_refuses_for_good_ends_the_agent(int status, string cure)
    {
        Coordinator.Status = status;
        await _home.StartAsync();

        CoordinatorException refusal = await Assert.ThrowsAsync<CoordinatorException>(() => _home.Agent!.Completion.WaitAsync(TimeSpan.FromSeconds(20)));

        Assert.Equal(status, (int)refusal.Status!);
        Assert.Contains("the stub refuses", refusal.Message, StringComparison.Ordinal);
        Assert.Contains(cure, refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_agent_waits_for_its_name_and_agents_of_one_home_are_one()
    {
        Coordinator.Status = 409;
        await _home.StartAsync();
        await Task.Delay(1000);
        Coordinator.Status = 200;
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.RunningAsync(s_demo);
        string? identity = Coordinator.Last!.Agent;
        await _home.StopAsync();
        Coordinator.Reports.Clear();
        await _home.StartAsync();
        await AgentHome.UntilAsync(() => Coordinator.Last is not null);

        Assert.Equal(identity, Coordinator.Last!.Agent);
        await using var other = new AgentHome();
        await other.Coordinator.StartAsync();
        await other.StartAsync();
        await AgentHome.UntilAsync(() => other.Coordinator.Last is not null);
        Assert.NotEqual(identity, other.Coordinator.Last!.Agent);
    }

    [Fact]
    public async Task Hostile_names_and_bodies_reach_nothing()
    {
        var hostile = new JobId("../../etc");
        Coordinator.Order(
            AgentHome.Assign("demo-abcd", 0), AgentHome.Assign("demo-abcd", 1, 5, 2), AgentHome.Assign("demo-abcd", 1, -1), AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync();
        await _home.RunningAsync(s_demo);
        Assert.Equal([s_demo], Coordinator.Last!.Ranks.Select(rank => rank.Name));

        // As JSON it is refused as a whole, so that the agent hears nothing.
        Coordinator.Order(new RankAssignment { Name = new RankName(hostile, 1, 0), WorldSize = 1, Config = "{}" });
        await Task.Delay(1500);
        Assert.Single(_home.Pids(s_demo));
        Assert.False(Directory.Exists(_home.Home.Job(hostile).Directory) && Directory.Exists(_home.Home.Job(hostile).Attempt(1).Directory));

        Assert.StartsWith("HTTP/1.1 404", await RawAsync("POST /v1/jobs/..%2F..%2Fetc/heartbeat", "{\"attempt\": 1, \"pid\": 1}"), StringComparison.Ordinal);
        Assert.StartsWith("HTTP/1.1 400", await RawAsync("POST /v1/jobs/demo-abcd/heartbeat", "{\"attempt\": "), StringComparison.Ordinal);
        Assert.StartsWith("HTTP/1.1 400", await RawAsync("POST /v1/jobs/demo-abcd/heartbeat", "null"), StringComparison.Ordinal);
        Assert.StartsWith("HTTP/1.1 413", await RawAsync("POST /v1/jobs/demo-abcd/heartbeat", new string(' ', 1 << 17)), StringComparison.Ordinal);
        Assert.Equal(RankOrder.Fenced, (await HeartbeatAsync(AgentHome.Name("nope-abcd", 1))).Order);
    }

    [Fact]
    public async Task One_agent_serves_a_home_and_none_loads_the_tensor_library()
    {
        await _home.StartAsync();

        ConfigException refused = await Assert.ThrowsAsync<ConfigException>(() => _home.StartAsync());

        Assert.Contains("a worker agent already serves", refused.Message, StringComparison.Ordinal);
        Assert.Equal($"{Environment.ProcessId} ", (await File.ReadAllTextAsync(_home.Home.AgentPid))[..(Environment.ProcessId.ToString(System.Globalization.CultureInfo.InvariantCulture).Length + 1)]);
    }

    [Fact]
    public async Task Each_rank_sees_one_device_and_keeps_it_over_a_restart_of_the_agent()
    {
        AgentOptions Gpus(AgentOptions options) => options with { Slots = 2, Devices = ["GPU-a", "GPU-b"] };
        RankAssignment[] three = [AgentHome.Assign("demo-abcd", 1, 0, 3), AgentHome.Assign("demo-abcd", 1, 1, 3), AgentHome.Assign("demo-abcd", 1, 2, 3)];
        Coordinator.Order(three[0]);
        await _home.StartAsync(Gpus);
        await _home.RunningAsync(three[0].Name);
        Assert.Contains("\0CUDA_VISIBLE_DEVICES=GPU-a\0", Environ(three[0].Name), StringComparison.Ordinal);

        await _home.StopAsync();
        Coordinator.Order(three[0], three[1]);
        await _home.StartAsync(Gpus);
        await _home.RunningAsync(three[1].Name);
        Coordinator.Order(three);

        Assert.Contains("\0CUDA_VISIBLE_DEVICES=GPU-b\0", Environ(three[1].Name), StringComparison.Ordinal);
        RankState refused = await _home.UntilAsync(three[2].Name, state => !state.Alive);
        Assert.Equal("no device is free on this node, which has 2", refused.LastWords);
        Assert.Equal(SlotKind.Cuda, Coordinator.Last!.Kind);
    }

    private string Environ(RankName name) => AgentHome.Read(_home.Pids(name).Single(), "environ");

    private int[] Children(RankName name) => [.. new RankProcesses(_home.Options).Find().Where(found => found.Name == name).Select(found => found.Process.Pid)];

    private async Task<RankReply> HeartbeatAsync(RankName name, int step = 1, string? endpoint = null, long ticks = 0)
    {
        using var client = new CoordinatorClient(_home.Home.AgentSocket);
        return await client.HeartbeatAsync(name.Job, new RankReport
        {
            Attempt = name.Attempt, Pid = 1, Phase = RankPhase.Training, Rank = name.Rank, Step = step, Endpoint = endpoint, Ticks = ticks, Activity = "all-reduce",
        });
    }

    private async Task<string> RawAsync(string line, string body)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(_home.Home.AgentSocket));
        await socket.SendAsync(Encoding.ASCII.GetBytes(
            $"{line} HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {body.Length}\r\n\r\n"));
        if (body.Length < 1 << 16)
        {
            await socket.SendAsync(Encoding.ASCII.GetBytes(body));
        }
        byte[] answer = new byte[1 << 12];
        return Encoding.ASCII.GetString(answer, 0, await socket.ReceiveAsync(answer));
    }
}
