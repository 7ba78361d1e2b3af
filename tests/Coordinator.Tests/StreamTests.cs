using System.Diagnostics;
using System.Net;
using System.Text;
using System.Text.Json;
using Trainer.Contracts;

namespace Coordinator.Tests;

/// <summary>Who follows a job hears of everything once and in order, and costs the coordinator next to nothing.</summary>
public sealed class StreamTests : IAsyncLifetime
{
    private static readonly TimeSpan s_long = TimeSpan.FromSeconds(20);

    private readonly TestHome _home = new();
    private TestCoordinator? _host;
    private CoordinatorClient? _client, _agent;

    private CoordinatorClient Client => _client!;

    public async Task InitializeAsync()
    {
        _host = await _home.StartAsync();
        _client = new CoordinatorClient(_home.Home.Socket);
        _agent = new CoordinatorClient(_home.Home.AgentSocket);
    }

    public async Task DisposeAsync()
    {
        Client.Dispose();
        _agent!.Dispose();
        await _host!.DisposeAsync();
        _home.Dispose();
    }

    [Fact]
    public async Task A_request_for_events_waits_for_the_next_one_and_for_no_more_after_the_end()
    {
        JobId job = await RunAsync();
        EventList before = await Client.EventsAsync(job.Value, 0, TimeSpan.Zero);
        Assert.Equal([1, 2], before.Events.Select(entry => entry.Sequence));
        Assert.Equal(JobStatus.Running, before.Status);

        Task<EventList> next = Client.EventsAsync(job.Value, 2, s_long);
        await Task.Delay(300);
        Assert.False(next.IsCompleted);
        await Client.CancelAsync(job.Value);
        EventList after = await next.WaitAsync(TimeSpan.FromSeconds(5));
        Assert.Equal("asked to stop", Assert.Single(after.Events).Text);

        next = Client.EventsAsync(job.Value, 3, s_long);
        _home.Do(job, 1, RankOutcome.Cancelled);
        Assert.Equal((JobStatus.Cancelled, "cancelled"), ((await next).Status, (await next).Events[0].Text[.."cancelled".Length]));
        Assert.Empty((await Client.EventsAsync(job.Value, 4, s_long).WaitAsync(TimeSpan.FromSeconds(5))).Events);
    }

    [Fact]
    public async Task A_request_without_news_is_answered_after_its_time_and_a_wrong_number_at_once()
    {
        JobId job = await RunAsync();
        var watch = Stopwatch.StartNew();
        Assert.Empty((await Client.EventsAsync(job.Value, 2, TimeSpan.FromSeconds(1))).Events);
        Assert.InRange(watch.Elapsed.TotalSeconds, 0.9, 4);
        watch.Restart();
        Assert.Empty(await Client.ReadLogAsync(new RankName(job, 1, 0), LogStream.Stderr, 0, TimeSpan.FromSeconds(1)));
        Assert.InRange(watch.Elapsed.TotalSeconds, 0.9, 4);

        foreach (string path in new[] { "events?after=x", "events?after=1&after=2", "events?after=99999999999", "stream?step=1.5", "attempts/1/ranks/0/stdout?offset=x", "attempts/1/ranks/0/stdout?wait=-1" })
        {
            using EventReader refused = await EventReader.OpenAsync(_home.Home.Socket, $"v1/jobs/{job}/{path}");
            Assert.True(refused.Status == HttpStatusCode.BadRequest, path);
        }
    }

    [Fact]
    public async Task A_request_for_a_log_waits_until_the_rank_writes()
    {
        JobId job = await RunAsync();
        var rank = new RankName(job, 1, 0);
        string file = _home.Home.Job(job).Attempt(1).Stdout;
        byte[] first = await Client.ReadLogAsync(rank, LogStream.Stdout, 0, s_long);
        Assert.Equal("rank of attempt 1\n", Encoding.UTF8.GetString(first));

        Task<byte[]> next = Client.ReadLogAsync(rank, LogStream.Stdout, first.Length, s_long);
        Task<byte[]> missing = Client.ReadLogAsync(rank, LogStream.Stacks, 0, s_long);
        await Task.Delay(500);
        Assert.False(next.IsCompleted || missing.IsCompleted);
        await File.AppendAllTextAsync(file, "more\n");
        await File.AppendAllTextAsync(_home.Home.Job(job).Attempt(1).StacksOf(0), "stacks\n");

        Assert.Equal("more\n", Encoding.UTF8.GetString(await next.WaitAsync(TimeSpan.FromSeconds(5))));
        Assert.Equal("stacks\n", Encoding.UTF8.GetString(await missing.WaitAsync(TimeSpan.FromSeconds(5))));
    }

    [Fact]
    public async Task Metrics_and_samples_of_the_coordinators_own_machine_are_read_from_the_files_of_the_job()
    {
        JobId job = await RunAsync();
        JobFiles files = _home.Home.Job(job);
        await File.WriteAllTextAsync(files.Metrics, Metrics(1));
        await File.WriteAllTextAsync(files.Samples, "{\"step\":1,\"text\":\"hi\"}\n");

        Assert.Equal(Metrics(1), Encoding.UTF8.GetString(await Client.ReadLogAsync(new RankName(job, 1, 0), LogStream.Metrics, 0)));
        Assert.Contains("hi", Encoding.UTF8.GetString(await Client.ReadLogAsync(new RankName(job, 1, 0), LogStream.Samples, 0)), StringComparison.Ordinal);

        // A link leads to another attempt's, which came from elsewhere.
        string other = Path.Combine(files.Attempt(1).Directory, "metrics.jsonl");
        File.Move(files.Metrics, other);
        File.CreateSymbolicLink(files.Metrics, other);
        Assert.Empty(await Client.ReadLogAsync(new RankName(job, 2, 0), LogStream.Metrics, 0));
        Assert.Equal(Metrics(1), Encoding.UTF8.GetString(await Client.ReadLogAsync(new RankName(job, 1, 0), LogStream.Metrics, 0)));
    }

    [Fact]
    public async Task Server_sent_events_tell_everything_once_in_order_and_resume_where_they_broke_off()
    {
        JobId job = await RunAsync();
        JobFiles files = _home.Home.Job(job);
        await File.WriteAllTextAsync(files.Metrics, Metrics(1, 2));
        List<SentEvent> seen;
        using (EventReader stream = await OpenAsync(job))
        {
            seen = await stream.UntilAsync(record => record.Kind == "status");
            await File.AppendAllTextAsync(files.Metrics, Metrics(3)[..20]);
            await Task.Delay(300);
            await File.AppendAllTextAsync(files.Metrics, Metrics(3)[20..]);
            seen.AddRange(await stream.UntilAsync(record => record.Kind == "metrics"));
        }
        Assert.Equal(["event", "event", "metrics", "metrics", "status", "metrics"], seen.Select(record => record.Kind));
        Assert.Equal(["1-0", "2-0", "2-1", "2-2", "2-2", "2-3"], seen.Select(record => record.Id));
        JsonElement status = JsonDocument.Parse(seen[4].Data).RootElement;
        Assert.Equal(("running", 0), (status.GetProperty("status").GetString(), status.GetProperty("history").GetArrayLength()));

        // Another attempt writes a step again: it is told once.
        await File.WriteAllTextAsync(files.Metrics, Metrics(1, 2, 3, 4));
        await Client.CancelAsync(job.Value);
        _home.Do(job, 1, RankOutcome.Cancelled, step: 4);
        using EventReader resumed = await OpenAsync(job, seen[^1].Id);
        List<SentEvent> rest = await resumed.UntilAsync(_ => false);
        Assert.Equal(["asked to stop", "cancelled: at step 4"], rest.Where(record => record.Kind == "event").Select(record => JsonDocument.Parse(record.Data).RootElement.GetProperty("text").GetString()));
        Assert.Equal(Metrics(4), Assert.Single(rest, record => record.Kind == "metrics").Data + "\n");
        Assert.Equal("cancelled", JsonDocument.Parse(rest.Last(record => record.Kind == "status").Data).RootElement.GetProperty("status").GetString());

        using EventReader over = await OpenAsync(job, rest[^1].Id);
        Assert.Equal(HttpStatusCode.NoContent, over.Status);
        using EventReader events = await EventReader.OpenAsync(_home.Home.Socket, $"v1/jobs/{job}/events?after=2");
        Assert.Equal(["event", "event"], (await events.UntilAsync(_ => false)).Select(record => record.Kind));
    }

    [Fact]
    public async Task Fifty_clients_hear_the_same_share_one_watch_and_leave_nothing_behind()
    {
        JobId job = await RunAsync();
        JobFiles files = _home.Home.Job(job);
        Task<List<SentEvent>>[] clients = [.. Enumerable.Range(0, 50).Select(_ => Task.Run(async () =>
        {
            using EventReader stream = await OpenAsync(job);
            return await stream.UntilAsync(_ => false);
        }))];
        for (int step = 1; step <= 40; step++)
        {
            await File.AppendAllTextAsync(files.Metrics, Metrics(step));
            await _agent!.HeartbeatAsync(job, new RankReport { Attempt = 1, Pid = 1, Phase = RankPhase.Training, Step = step, Steps = 40 });
            await Task.Delay(25);
        }
        Assert.Equal(1, _host!.Host.Watches.Count);
        _home.Do(job, 1, RankOutcome.Succeeded, step: 40);

        foreach (List<SentEvent> heard in await Task.WhenAll(clients))
        {
            Assert.Equal(["submitted", "attempt 1 starts on local", "succeeded: at step 40"],
                heard.Where(record => record.Kind == "event").Select(record => JsonDocument.Parse(record.Data).RootElement.GetProperty("text").GetString()));
            Assert.Equal(Enumerable.Range(1, 40), heard.Where(record => record.Kind == "metrics").Select(record => JsonDocument.Parse(record.Data).RootElement.GetProperty("step").GetInt32()));
            Assert.Contains("\"status\":\"succeeded\"", heard.Last(record => record.Kind == "status").Data, StringComparison.Ordinal);
        }
        Assert.Equal(0, _host.Host.Watches.Count);
    }

    [Fact]
    public async Task Of_long_metrics_every_line_is_told()
    {
        JobId job = await RunAsync();
        await File.WriteAllTextAsync(_home.Home.Job(job).Metrics, Metrics([.. Enumerable.Range(1, 5000)]));
        using EventReader stream = await OpenAsync(job);
        List<SentEvent> heard = await stream.UntilAsync(record => record.Kind == "status");
        Assert.Equal(Enumerable.Range(1, 5000), heard.Where(record => record.Kind == "metrics").Select(record => JsonDocument.Parse(record.Data).RootElement.GetProperty("step").GetInt32()));
    }

    [Fact]
    public async Task A_coordinator_that_stops_answers_whoever_waits()
    {
        JobId job = await RunAsync();
        using EventReader stream = await OpenAsync(job);
        await stream.UntilAsync(record => record.Kind == "status");
        Task<EventList> events = Client.EventsAsync(job.Value, 2, TimeSpan.FromSeconds(30));
        Task<byte[]> log = Client.ReadLogAsync(new RankName(job, 1, 0), LogStream.Stderr, 0, TimeSpan.FromSeconds(30));
        Task orders = Client.WaitForOrdersAsync("elsewhere");
        await Task.Delay(300);

        var watch = Stopwatch.StartNew();
        await _host!.DisposeAsync();

        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 5);
        Assert.Empty((await events).Events);
        Assert.Empty(await log);
        await orders;
        Assert.Empty(await stream.UntilAsync(_ => false));
        _host = await _home.StartAsync();
    }

    private async Task<JobId> RunAsync()
    {
        JobView job = await Client.SubmitAsync(new SubmitRequest { Config = _home.Job() });
        await TestHome.UntilAsync(Client, job.Id, JobStatus.Running, 1);
        await _home.PidAsync(job.Id, 1);
        return job.Id;
    }

    private Task<EventReader> OpenAsync(JobId job, string? lastId = null) => EventReader.OpenAsync(_home.Home.Socket, $"v1/jobs/{job}/stream", lastId);

    private static string Metrics(params int[] steps) =>
        string.Concat(steps.Select(step => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{{\"step\":{step},\"loss\":{1.0 / step},\"note\":\"{new string('x', 80)}\"}}\n")));
}
