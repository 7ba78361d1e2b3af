using System.Net;
using System.Net.Sockets;
using System.Text;
using Trainer.Contracts;
using Trainer.Coordinator;

namespace Coordinator.Tests;

public sealed class CoordinatorTests : IAsyncLifetime
{
    private readonly TestHome _home = new();
    private TestCoordinator? _host;
    private CoordinatorClient? _client, _agent;

    private CoordinatorClient Client => _client!;

    /// <summary>Whom ranks speak to.</summary>
    private CoordinatorClient Agent => _agent!;

    public async Task InitializeAsync()
    {
        _host = await _home.StartAsync();
        _client = new CoordinatorClient(_home.Home.Socket);
        _agent = new CoordinatorClient(_home.Home.AgentSocket);
    }

    public async Task DisposeAsync()
    {
        Client.Dispose();
        Agent.Dispose();
        await _host!.DisposeAsync();
        _home.Dispose();
    }

    [Fact]
    public async Task A_job_runs_in_a_process_of_its_own_and_succeeds()
    {
        JobView job = await SubmitAsync();
        await RunningAsync(job.Id, 1);
        await _home.PidAsync(job.Id, 1);

        _home.Do(job.Id, 1, RankOutcome.Succeeded, step: 60);
        job = await EndedAsync(job.Id);

        Assert.Equal((JobStatus.Succeeded, 1, 60), (job.Status, job.Attempt, job.Step));
        Assert.Equal(["submitted", "attempt 1 starts on local", "succeeded: at step 60"], job.History.Select(entry => entry.Text));
        Assert.Equal("rank of attempt 1\n", await File.ReadAllTextAsync(_home.Home.Job(job.Id).Attempt(1).Stdout));
        Assert.Equal(JobConfigJson.Write(_home.Job()), JobConfigJson.Write(JobConfigJson.Load(_home.Home.Job(job.Id).Config)));
    }

    [Fact]
    public async Task A_user_error_fails_at_once_with_its_message()
    {
        JobView job = await SubmitAsync();
        await RunningAsync(job.Id, 1);

        _home.Do(job.Id, 1, RankOutcome.Failed, FailureClass.User, "train.jsonl:4: not JSON; remove the line");
        job = await EndedAsync(job.Id);

        Assert.Equal((JobStatus.Failed, 1, "train.jsonl:4: not JSON; remove the line"), (job.Status, job.Attempt, job.Reason));
    }

    [Fact]
    public async Task A_killed_rank_is_started_again()
    {
        JobView job = await SubmitAsync();
        await RunningAsync(job.Id, 1);

        _home.Do(job.Id, 1, "crash");
        job = await RunningAsync(job.Id, 2);
        HistoryEntry lost = Assert.Single(job.History, entry => entry.Text.Contains("attempt 2 starts in 1 s", StringComparison.Ordinal));
        Assert.Matches("^attempt 1 ended: process [0-9]+ ended without a result: .*SIGKILL.*boom", lost.Text);
        _home.Do(job.Id, 2, RankOutcome.Succeeded);

        Assert.Equal(JobStatus.Succeeded, (await EndedAsync(job.Id)).Status);
    }

    [Fact]
    public async Task Cancelling_orders_a_stop_and_resuming_fences_the_old_attempt()
    {
        JobView job = await SubmitAsync();
        await RunningAsync(job.Id, 1);
        Assert.Equal(RankOrder.Continue, (await Agent.HeartbeatAsync(job.Id, Report(1, 5))).Order);

        Assert.Equal(JobStatus.Stopping, (await Client.CancelAsync("demo")).Status);
        await OrderedAsync(job.Id, Report(1, 6), RankOrder.Stop);
        _home.Do(job.Id, 1, RankOutcome.Cancelled, step: 6);
        Assert.Equal(JobStatus.Cancelled, (await EndedAsync(job.Id)).Status);
        await OrderedAsync(job.Id, Report(1, 7), RankOrder.Fenced);

        await Client.ResumeAsync(job.Id.Value);
        await RunningAsync(job.Id, 2);
        Assert.Equal(RankOrder.Fenced, (await Agent.HeartbeatAsync(job.Id, Report(1, 8))).Order);
        Assert.Equal(RankOrder.Continue, (await Agent.HeartbeatAsync(job.Id, Report(2, 7))).Order);
        _home.Do(job.Id, 2, RankOutcome.Succeeded, step: 9);
        job = await EndedAsync(job.Id);

        Assert.Equal((JobStatus.Succeeded, 9), (job.Status, job.Step));
        Assert.Equal(HttpStatusCode.Conflict, (await Assert.ThrowsAsync<CoordinatorException>(() => Client.ResumeAsync("demo"))).Status);
    }

    [Fact]
    public async Task A_job_that_is_resumed_while_it_pauses_goes_on_once_it_has_stopped()
    {
        JobView job = await SubmitAsync();
        await RunningAsync(job.Id, 1);
        Assert.Equal((JobStatus.Stopping, "pauses after a last checkpoint"), await StateAsync(Client.PauseAsync("demo")));

        Assert.Equal((JobStatus.Stopping, "stops after a last checkpoint, then goes on"), await StateAsync(Client.ResumeAsync("demo")));
        await OrderedAsync(job.Id, Report(1, 6), RankOrder.Stop);
        _home.Do(job.Id, 1, RankOutcome.Cancelled, step: 6);
        await RunningAsync(job.Id, 2);
        _home.Do(job.Id, 2, RankOutcome.Succeeded, step: 9);

        Assert.Equal(JobStatus.Succeeded, (await EndedAsync(job.Id)).Status);

        static async Task<(JobStatus, string?)> StateAsync(Task<JobView> asked) => (await asked) is var view ? (view.Status, view.Reason) : default;
    }

    [Fact]
    public async Task One_job_runs_at_a_time_by_priority_and_each_waiting_one_says_why()
    {
        JobView first = await SubmitAsync("first");
        await RunningAsync(first.Id, 1);
        JobView low = await SubmitAsync("low");
        await ReasonAsync(low.Id, $"waiting for 1 slot in pool default: 0 of 1 free, {first.Id} runs (position 1 of 1)");
        JobView high = await SubmitAsync("high", priority: 5);
        await ReasonAsync(high.Id, $"waiting for 1 slot in pool default: 0 of 1 free, {first.Id} runs (position 1 of 2)");
        await ReasonAsync(low.Id, $"waiting for 1 slot in pool default: 0 of 1 free, {first.Id} runs (position 2 of 2)");

        _home.Do(first.Id, 1, RankOutcome.Succeeded);
        await RunningAsync(high.Id, 1);
        Assert.Equal(JobStatus.Queued, (await Client.GetAsync("low")).Status);
        _home.Do(high.Id, 1, RankOutcome.Succeeded);
        await RunningAsync(low.Id, 1);

        Assert.Equal(["first", "low", "high"], (await Client.ListAsync()).Jobs.Select(job => job.Name));
        Assert.Equal(JobStatus.Cancelled, (await CancelAsync(low.Id)).Status);
    }

    [Fact]
    public async Task A_paused_job_waits_for_its_resume()
    {
        JobView job = await Client.SubmitAsync(new SubmitRequest { Config = _home.Job(), Paused = true });
        JobView other = await SubmitAsync("other");
        await RunningAsync(other.Id, 1);
        Assert.Equal(JobStatus.Paused, (await Client.GetAsync(job.Id.Value)).Status);
        _home.Do(other.Id, 1, RankOutcome.Succeeded);

        await Client.ResumeAsync(job.Id.Value);
        await RunningAsync(job.Id, 1);
    }

    [Fact]
    public async Task A_hundred_submits_with_one_key_give_one_job()
    {
        var request = new SubmitRequest { Config = _home.Job(), IdempotencyKey = "monday" };

        JobView[] jobs = await Task.WhenAll(Enumerable.Range(0, 100).Select(_ => Client.SubmitAsync(request)));

        Assert.Single(jobs.Select(job => job.Id).Distinct());
        Assert.Single((await Client.ListAsync()).Jobs);
        CoordinatorException conflict = await Assert.ThrowsAsync<CoordinatorException>(
            () => Client.SubmitAsync(request with { Config = request.Config with { Seed = 1 } }));
        Assert.Equal(HttpStatusCode.Conflict, conflict.Status);
        Assert.Contains("belongs to a job with another configuration", conflict.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_running_rank_is_found_again_by_the_next_coordinator_and_not_restarted()
    {
        JobView job = await SubmitAsync();
        await RunningAsync(job.Id, 1);
        int pid = await _home.PidAsync(job.Id, 1);
        JobView waiting = await SubmitAsync("waiting");

        await _host!.DisposeAsync();
        await Assert.ThrowsAsync<CoordinatorException>(() => Agent.HeartbeatAsync(job.Id, Report(1, 1)));
        _host = await _home.StartAsync();

        Assert.Equal(RankOrder.Continue, (await Agent.HeartbeatAsync(job.Id, Report(1, 5))).Order);
        await ReasonAsync(waiting.Id, $"waiting for 1 slot in pool default: 0 of 1 free, {job.Id} runs (position 1 of 1)");
        Assert.Equal([pid], _home.Pids(job.Id, 1));
        _home.Do(job.Id, 1, RankOutcome.Succeeded);
        Assert.Equal((JobStatus.Succeeded, 1), ((await EndedAsync(job.Id)).Status, (await Client.GetAsync(job.Id.Value)).Attempt));
        await RunningAsync(waiting.Id, 1);
    }

    [Fact]
    public async Task A_rank_that_ended_while_no_coordinator_ran_is_not_forgotten()
    {
        JobView job = await SubmitAsync();
        await RunningAsync(job.Id, 1);
        await _host!.DisposeAsync();
        _home.Do(job.Id, 1, RankOutcome.Succeeded, step: 11);
        await UntilGoneAsync(job.Id, 1);

        _host = await _home.StartAsync();

        job = await EndedAsync(job.Id);
        Assert.Equal((JobStatus.Succeeded, 1, 11), (job.Status, job.Attempt, job.Step));
    }

    [Fact]
    public async Task A_silent_rank_is_killed_before_the_next_attempt()
    {
        await _host!.DisposeAsync();
        _host = await _home.StartAsync(silence: TimeSpan.FromMilliseconds(500));
        JobView job = await SubmitAsync();
        await RunningAsync(job.Id, 1);
        await _home.PidAsync(job.Id, 1);

        job = await TestHome.UntilAsync(Client, job.Id, view => view.Attempt == 2);

        Assert.Empty(_home.Pids(job.Id, 1));
        Assert.Contains(job.History, entry => entry.Text.Contains("gives no sign of life", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Wrong_requests_are_refused_in_one_sentence()
    {
        JobConfig bad = _home.Job() with { Seed = -1, Training = new TrainingConfig { Steps = 0 } };
        CoordinatorException refused = await Assert.ThrowsAsync<CoordinatorException>(() => Client.SubmitAsync(new SubmitRequest { Config = bad }));
        Assert.Equal(HttpStatusCode.BadRequest, refused.Status);
        Assert.Contains("seed: -1 is out of range", refused.Message, StringComparison.Ordinal);
        Assert.Contains("training.steps: 0 is out of range", refused.Message, StringComparison.Ordinal);

        Assert.StartsWith("HTTP/1.1 400", await RawAsync("POST /v1/jobs", "{\"config\": "), StringComparison.Ordinal);
        Assert.StartsWith("HTTP/1.1 400", await RawAsync("POST /v1/jobs", "{\"sead\": 1}"), StringComparison.Ordinal);
        Assert.StartsWith("HTTP/1.1 404", await RawAsync("POST /v1/jobs/..%2F..%2Fetc/cancel", ""), StringComparison.Ordinal);
        Assert.StartsWith("HTTP/1.1 413", await RawAsync("POST /v1/jobs", new string(' ', 3 << 20)), StringComparison.Ordinal);
        Assert.Equal(HttpStatusCode.NotFound, (await Assert.ThrowsAsync<CoordinatorException>(() => Client.GetAsync("nope"))).Status);
        Assert.Equal(RankOrder.Fenced, (await Agent.HeartbeatAsync(new JobId("nope-abcd"), Report(1, 1))).Order);
        Assert.Empty((await Client.ListAsync()).Jobs);
    }

    [Fact]
    public async Task Only_one_coordinator_serves_a_home_and_only_its_owner_may_speak_to_it()
    {
        await Assert.ThrowsAsync<CoordinatorRunningException>(() => _home.StartAsync());

        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(_home.Home.Socket));
        Assert.Equal(Environment.ProcessId, (await Client.InfoAsync()).Pid);
    }

    [Fact]
    public async Task The_coordinator_never_loads_the_tensor_library()
    {
        JobView job = await SubmitAsync();
        await RunningAsync(job.Id, 1);

        Assert.DoesNotContain(typeof(Trainer.Coordinator.CoordinatorHost).Assembly.GetReferencedAssemblies(), assembly => assembly.Name is "TorchSharp" or "Trainer.Worker");
        Assert.DoesNotContain("libtorch", await File.ReadAllTextAsync("/proc/self/maps"), StringComparison.Ordinal);
    }

    private Task<JobView> SubmitAsync(string name = "demo", int priority = 0) =>
        Client.SubmitAsync(new SubmitRequest { Config = _home.Job(name, priority) });

    private Task<JobView> RunningAsync(JobId job, int attempt) => TestHome.UntilAsync(Client, job, JobStatus.Running, attempt);

    private Task<JobView> EndedAsync(JobId job) => TestHome.UntilAsync(Client, job, view => view.Status.IsTerminal());

    private Task<JobView> ReasonAsync(JobId job, string reason) => TestHome.UntilAsync(Client, job, view => view.Reason == reason);

    private async Task<JobView> CancelAsync(JobId job)
    {
        await Client.CancelAsync(job.Value);
        _home.Do(job, 1, RankOutcome.Cancelled);
        return await EndedAsync(job);
    }

    /// <summary>Orders reach the agent with its next report.</summary>
    private async Task OrderedAsync(JobId job, RankReport report, RankOrder order)
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(5));
        while ((await Agent.HeartbeatAsync(job, report, limit.Token)).Order != order)
        {
            await Task.Delay(20, limit.Token);
        }
    }

    private async Task UntilGoneAsync(JobId job, int attempt)
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(5));
        while (_home.Pids(job, attempt).Length > 0)
        {
            await Task.Delay(20, limit.Token);
        }
    }

    private static RankReport Report(int attempt, int step) => new() { Attempt = attempt, Pid = 1, Phase = RankPhase.Training, Step = step, Steps = 100, Loss = 1.5 };

    private async Task<string> RawAsync(string line, string body)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(_home.Home.Socket));
        await socket.SendAsync(Encoding.ASCII.GetBytes(
            $"{line} HTTP/1.1\r\nHost: coordinator\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {body.Length}\r\n\r\n"));
        byte[] answer = new byte[1 << 12];
        if (body.Length < 1 << 20)
        {
            await socket.SendAsync(Encoding.ASCII.GetBytes(body));
        }
        return Encoding.ASCII.GetString(answer, 0, await socket.ReceiveAsync(answer));
    }
}
