using Trainer.Contracts;

namespace Trainer.Worker.Tests.Agent;

public sealed class LogShippingTests : IAsyncLifetime
{
    private static readonly RankName s_demo = AgentHome.Name("demo-abcd", 1);

    private readonly AgentHome _home = new();

    private StubCoordinator Coordinator => _home.Coordinator;

    public Task InitializeAsync() => Coordinator.StartAsync();

    public async Task DisposeAsync() => await _home.DisposeAsync();

    private static string Chatter { get; } = "rank 0 of attempt 1\n" + string.Concat(Enumerable.Range(0, 20000).Select(i => $"line {i} of the log\n")) + "last words\n";

    [Fact]
    public async Task Every_line_arrives_in_order_to_the_last_before_a_kill()
    {
        Coordinator.Halves = 3;
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync();
        await _home.RunningAsync(s_demo);

        _home.Do(s_demo, "chatter");
        await ArrivedAsync(s_demo);

        Assert.Equal(Chatter, Coordinator.Log(s_demo, "stdout"));
        Assert.Equal("last error\n", Coordinator.Log(s_demo, "stderr"));
    }

    [Fact]
    public async Task Logs_survive_the_death_of_rank_agent_and_coordinator_at_once()
    {
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync();
        await _home.RunningAsync(s_demo);
        await AgentHome.UntilAsync(() => Coordinator.Log(s_demo, "stdout").Length > 0);

        await _home.StopAsync();
        await Coordinator.StopAsync();
        _home.Do(s_demo, "chatter");
        await AgentHome.UntilAsync(() => _home.Pids(s_demo).Length == 0);
        Coordinator.Order();
        await _home.StartAsync();
        await Coordinator.StartAsync();
        await ArrivedAsync(s_demo);

        Assert.Equal(Chatter, Coordinator.Log(s_demo, "stdout"));
        Assert.Equal("last error\n", Coordinator.Log(s_demo, "stderr"));
    }

    [Fact]
    public async Task A_coordinator_without_room_delays_logs_and_stops_nothing()
    {
        Coordinator.Full = true;
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync();
        await _home.RunningAsync(s_demo);
        _home.Do(s_demo, "chatter");
        await _home.UntilAsync(s_demo, state => !state.Alive);
        Coordinator.Order();
        await AgentHome.UntilAsync(() => Coordinator.Last!.Ranks.IsEmpty);
        Assert.Empty(Coordinator.Log(s_demo, "stdout"));

        Coordinator.Full = false;
        await ArrivedAsync(s_demo);

        Assert.Equal(Chatter, Coordinator.Log(s_demo, "stdout"));
    }

    [Fact]
    public async Task Metrics_are_those_of_the_attempt_that_wrote_them()
    {
        RankName next = AgentHome.Name("demo-abcd", 2);
        JobFiles files = _home.Home.Job(s_demo.Job);
        Coordinator.Order(AgentHome.Assign("demo-abcd", 1));
        await _home.StartAsync();
        await _home.RunningAsync(s_demo);
        await File.AppendAllTextAsync(files.Metrics, "one\ntwo\n");
        await AgentHome.UntilAsync(() => Coordinator.Log(s_demo, "metrics") == "one\ntwo\n");

        // The next attempt cuts off what came after its checkpoint; what is there before that is not shipped as its own.
        await Task.Delay(50);
        Coordinator.Order(AgentHome.Assign("demo-abcd", 2));
        await _home.RunningAsync(next);
        await Task.Delay(700);
        Assert.Empty(Coordinator.Log(next, "metrics"));
        await File.WriteAllTextAsync(files.Metrics, "one\n");
        await File.AppendAllTextAsync(files.Metrics, "zwei\ndrei\n");

        await AgentHome.UntilAsync(() => Coordinator.Log(next, "metrics") == "one\nzwei\ndrei\n");
        Assert.Equal("one\ntwo\n", Coordinator.Log(s_demo, "metrics"));
    }

    [Fact]
    public async Task A_coordinator_on_the_same_home_gets_no_logs()
    {
        await using var local = new StubCoordinator(_home.Home.Socket);
        Directory.CreateDirectory(_home.Home.Directory);
        local.Order(AgentHome.Assign("demo-abcd", 1));
        await local.StartAsync();
        await _home.StartAsync(options => options with { Coordinator = _home.Home.Socket });
        await AgentHome.UntilAsync(() => local.State(s_demo) is { Alive: true });
        _home.Do(s_demo, "chatter");
        await AgentHome.UntilAsync(() => local.State(s_demo) is { Alive: false });
        await Task.Delay(600);

        Assert.Empty(local.Logs);
    }

    /// <summary>The agent itself is sure that everything has arrived.</summary>
    private Task ArrivedAsync(RankName name) => AgentHome.UntilAsync(() => File.Exists(_home.Files(name).ShippedOf(name.Rank)));
}
