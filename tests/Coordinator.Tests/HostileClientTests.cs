using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Trainer.Contracts;
using Trainer.Coordinator;

namespace Coordinator.Tests;

/// <summary>Whatever a client sends, it is told what is wrong, and the coordinator goes on.</summary>
public sealed class HostileClientTests : IAsyncLifetime
{
    private OpenCoordinator? _open;

    private OpenCoordinator Open => _open!;

    public async Task InitializeAsync() => _open = await OpenCoordinator.StartAsync();

    public async Task DisposeAsync()
    {
        using (CoordinatorClient admin = Open.Client("x"))
        {
            Assert.Equal(Environment.ProcessId, (await admin.InfoAsync()).Pid);
        }
        await Open.DisposeAsync();
    }

    [Fact]
    public async Task Clients_that_dawdle_are_cut_off_and_nobody_waits_for_them()
    {
        Socket[] slow = [.. Enumerable.Range(0, 100).Select(_ => Connect())];
        for (int i = 0; i < slow.Length; i++)
        {
            // Half of them never end their headers, half never their body.
            await slow[i].SendAsync(Encoding.ASCII.GetBytes(i % 2 == 0
                ? "GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Slow: "
                : "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"));
        }
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(40));
        Task[] ends = [.. slow.Select(socket => UntilClosedAsync(socket, limit.Token))];
        while (!Task.WhenAll(ends).IsCompleted)
        {
            long start = TimeProvider.System.GetTimestamp();
            Assert.Equal(HttpStatusCode.OK, await Open.StatusAsync("a", HttpMethod.Get, "/v1/jobs"));
            Assert.True(TimeProvider.System.GetElapsedTime(start) < TimeSpan.FromSeconds(3), "another client waited");
            await Task.Delay(500, limit.Token);
        }
        await Task.WhenAll(ends);
        Array.ForEach(slow, socket => socket.Dispose());
    }

    [Theory]
    [InlineData("\0\0\0\u0001\u0002 no HTTP at all\r\n\r\n", "400")]
    [InlineData("GET /v1/jobs HTTP/9.9\r\nHost: x\r\n\r\n", "505")]
    [InlineData("GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\n\r\n", "404")]
    [InlineData("GET /v1/jobs/%00 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\n\r\n", "400")]
    [InlineData("GET /v1/jobs HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400")]
    [InlineData("POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nContent-Length: 99999999999\r\n\r\n", "413")]
    [InlineData("POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n", "400")]
    [InlineData("POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400")]
    public async Task Broken_requests_are_refused(string request, string status)
    {
        using Socket socket = Connect();
        await socket.SendAsync(Encoding.Latin1.GetBytes(request));
        string answer = await ReadAsync(socket);
        Assert.StartsWith($"HTTP/1.1 {status} ", answer, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Headers_and_bodies_without_end_are_refused()
    {
        using Socket headers = Connect();
        await headers.SendAsync(Encoding.ASCII.GetBytes($"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Long: {new string('a', 60_000)}\r\n\r\n"));
        Assert.StartsWith("HTTP/1.1 431 ", await ReadAsync(headers), StringComparison.Ordinal);

        using Socket chunks = Connect();
        await chunks.SendAsync("POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nTransfer-Encoding: chunked\r\n\r\n"u8.ToArray());
        byte[] chunk = Encoding.ASCII.GetBytes($"{0x10000:x}\r\n{new string(' ', 0x10000)}\r\n");
        Task<string> answer = ReadAsync(chunks);
        for (int sent = 0; sent < 1000 && !answer.IsCompleted; sent++)
        {
            try
            {
                await chunks.SendAsync(chunk);
            }
            catch (SocketException)
            {
                break;
            }
        }
        Assert.StartsWith("HTTP/1.1 413 ", await answer, StringComparison.Ordinal);
    }

    /// <summary>Twice what the sockets of both ends hold: a client that sends all before it reads would be reset.</summary>
    [Theory]
    [InlineData("a", HttpStatusCode.RequestEntityTooLarge)]
    [InlineData("nobody's", HttpStatusCode.Unauthorized)]
    public async Task Who_sends_too_much_reads_why(string token, HttpStatusCode expected)
    {
        using HttpResponseMessage response = await Open.SendAsync(token, HttpMethod.Post, "/v1/jobs", new string(' ', 24 << 20));
        Assert.Equal(expected, response.StatusCode);
    }

    public static TheoryData<string, string> Bodies => new()
    {
        { "", "the body is not what is expected here" },
        { "null", "the body is null" },
        { "{", "the body is not what is expected here" },
        { "[]", "the body is not what is expected here" },
        { """{"config": {}}""", "the body is not what is expected here" },
        { """{"config": 7}""", "the body is not what is expected here" },
        { $$"""{"config": {{new string('[', 50_000)}}""", "the body is not what is expected here" },
        { """{"config": {"name": "../../etc/passwd", "model": {"config": "/m.json"}, "data": {"train": [{"path": "/d.jsonl"}]}}}""", "name" },
        { """{"config": {"name": "a b", "model": {"config": "/m.json"}, "data": {"train": [{"path": "/d.jsonl"}]}}}""", "name" },
        { """{"config": {"name": "ok", "resources": {"pool": "../x"}, "model": {"config": "/m.json", "tokenizer": "/t"}, "data": {"train": [{"path": "/d.jsonl"}]}}}""", "pool" },
        { """{"config": {"name": "ok", "checkpoint": {"store": "gopher://x/y"}, "model": {"config": "/m.json", "tokenizer": "/t"}, "data": {"train": [{"path": "/d.jsonl"}]}}}""", "store" },
        { """{"config": {"name": "ok", "resources": {"ranks": 1000000}, "model": {"config": "/m.json", "tokenizer": "/t"}, "data": {"train": [{"path": "/d.jsonl"}]}}}""", "ranks" },
        { """{"config": {"name": "ok", "seed": 1e400, "model": {"config": "/m.json", "tokenizer": "/t"}, "data": {"train": [{"path": "/d.jsonl"}]}}}""", "the body is not what is expected here" },
        { """{"config": {"name": "ok", "checkpoint": {"store": "/tmp/\u0000x"}, "model": {"config": "/m.json", "tokenizer": "/t"}, "data": {"train": [{"path": "/d.jsonl"}]}}}""", "control character" },
        { """{"config": {"name": "ok", "output": {"path": "out"}, "model": {"config": "/m.json", "tokenizer": "/t"}, "data": {"train": [{"path": "/d.jsonl"}]}}}""", "give an absolute path" },
        { """{"config": {"name": "ok", "training": {"steps": "x"}, "model": {"config": "/m.json", "tokenizer": "/t"}, "data": {"train": [{"path": "/d.jsonl"}]}}}""", "a whole number is expected. Path: $.training.steps" },
        { """{"config": {"name": "ok"}}""", "keys are missing: " },
        { """{"config": {"name": "ok", "model": {"config": "/m.json", "tokenizer": "/t"}, "data": {"train": [{"path": "/d.jsonl"}]}}, "idempotency_key": ""}""", "1 to 200" },
        { """{"config": {"name": "ok", "model": {"config": "/m.json", "tokenizer": "/t"}, "data": {"train": [{"path": "/d.jsonl"}]}}, "idempotency_key": "a\nb"}""", "1 to 200" },
        { $$$"""{"config": {"name": "ok", "model": {"config": "/m.json", "tokenizer": "/t"}, "data": {"train": [{"path": "/d.jsonl"}]}}, "idempotency_key": "{{{new string('k', 201)}}}"}""", "1 to 200" },
        { "{\"config\": {\"name\": \"ok\\ud800\", \"model\": {\"config\": \"/m.json\"}, \"data\": {\"train\": []}}}", "" },
    };

    [Theory]
    [MemberData(nameof(Bodies))]
    public async Task A_wrong_submission_is_refused_with_the_cause(string body, string cause)
    {
        using HttpResponseMessage response = await Open.SendAsync("a", HttpMethod.Post, "/v1/jobs", body);
        string text = await response.Content.ReadAsStringAsync();
        Assert.True(response.StatusCode == HttpStatusCode.BadRequest, $"{response.StatusCode}: {text}");
        Assert.Contains(cause, text, StringComparison.Ordinal);
        Assert.DoesNotContain("System.", text, StringComparison.Ordinal);
        Assert.DoesNotContain("Trainer.", text, StringComparison.Ordinal);
        using CoordinatorClient alpha = Open.Client("a");
        Assert.Empty((await alpha.ListAsync()).Jobs);
    }

    [Theory]
    [InlineData("/v1/jobs/..%2F..%2F..%2Fetc%2Fpasswd")]
    [InlineData("/v1/jobs/JOB/attempts/..%2F..%2F1/ranks/0/stdout")]
    [InlineData("/v1/jobs/JOB/attempts/1/ranks/0/..%2F..%2Fconfig.json")]
    [InlineData("/v1/jobs/JOB/attempts/-1/ranks/0/stdout")]
    [InlineData("/v1/jobs/JOB/attempts/1/ranks/99999999999999/stdout")]
    [InlineData("/v1/jobs/JOB/attempts/1/ranks/0/1")]
    public async Task A_path_leads_nowhere_else(string path)
    {
        using CoordinatorClient alpha = Open.Client("a");
        JobView job = await alpha.SubmitAsync(new SubmitRequest { Config = Open.Home.Job() });
        Assert.Equal(HttpStatusCode.NotFound, await Open.StatusAsync("a", HttpMethod.Get, path.Replace("JOB", job.Id.Value, StringComparison.Ordinal)));
    }

    /// <summary>A rank of an attempt that is over, or of a job that never was, is not among the orders of its node: its agent ends it.</summary>
    [Fact]
    public async Task A_worker_with_ranks_of_the_past_is_told_to_end_them()
    {
        using CoordinatorClient alpha = Open.Client("a"), worker = Open.Client("w");
        JobView job = await alpha.SubmitAsync(new SubmitRequest { Config = Open.Home.Job() });
        await alpha.CancelAsync(job.Id.Value);
        var report = new NodeReport
        {
            Node = "old", Slots = 2, Ranks = [Alive(new RankName(job.Id, 1, 0)), Alive(new RankName(new JobId("nobody-0000"), 7, 0))],
        };
        NodeOrders orders = await worker.ReportAsync(report);
        for (int i = 0; i < 50 && orders.Ranks.Length > 0; i++)
        {
            // Until its job has answered, a rank is left alone, but never started.
            Assert.All(orders.Ranks, rank => Assert.Equal(0, rank.WorldSize));
            await Task.Delay(50);
            orders = await worker.ReportAsync(report);
        }
        Assert.Empty(orders.Ranks);

        static RankState Alive(RankName name) => new() { Name = name, Process = new ProcessIdentity { Pid = 1, StartTime = 1 }, Alive = true };
    }

    [Theory]
    [InlineData("[null]")]
    [InlineData("[{\"alive\": true}]")]
    [InlineData("[{\"name\": {\"attempt\": 1, \"rank\": 0}}]")]
    [InlineData("[{\"name\": {\"job\": \"demo-abcd\", \"attempt\": -1, \"rank\": 0}}]")]
    [InlineData("[{\"name\": {\"job\": \"demo-abcd\", \"attempt\": 1, \"rank\": 0}}, {\"name\": {\"job\": \"demo-abcd\", \"attempt\": 1, \"rank\": 0}}]")]
    public async Task A_report_that_makes_no_sense_is_refused_and_not_kept(string ranks)
    {
        using HttpResponseMessage response = await Open.SendAsync("w", HttpMethod.Post, "/v1/nodes/n9/report", $$"""{"contract": 1, "node": "n9", "slots": 1, "ranks": {{ranks}}}""");
        Assert.True(response.StatusCode == HttpStatusCode.BadRequest, $"{response.StatusCode}: {await response.Content.ReadAsStringAsync()}");
        using CoordinatorClient worker = Open.Client("w");
        Assert.Empty((await worker.ReportAsync(new NodeReport { Node = "n9", Slots = 1, Sequence = 1 })).Ranks);
    }

    /// <summary>Both would start every rank.</summary>
    [Fact]
    public async Task A_second_agent_of_one_name_is_refused_until_the_first_is_silent()
    {
        await using OpenCoordinator open = await OpenCoordinator.StartAsync(new CoordinatorOptions { NodeSilence = TimeSpan.FromSeconds(1) });
        using CoordinatorClient worker = open.Client("w");
        NodeReport one = new() { Node = "n1", Slots = 1, Sequence = 1, Agent = "one" }, two = one with { Agent = "two", Sequence = 2 };
        await worker.ReportAsync(one);
        CoordinatorException refusal = await Assert.ThrowsAsync<CoordinatorException>(() => worker.ReportAsync(two));
        Assert.Equal((HttpStatusCode.Conflict, "another agent reports as node n1"), (refusal.Status, refusal.Message));
        await worker.ReportAsync(one with { Sequence = 3 });
        await Task.Delay(1200);
        await worker.ReportAsync(two);
        await Assert.ThrowsAsync<CoordinatorException>(() => worker.ReportAsync(one with { Sequence = 4 }));
    }

    [Fact]
    public async Task A_report_that_was_held_up_does_not_undo_a_later_one()
    {
        using CoordinatorClient worker = Open.Client("w"), admin = Open.Client("x");
        var report = new NodeReport { Node = "n1", Slots = 2, Sequence = 1000 };
        await worker.ReportAsync(report);
        await worker.ReportAsync(report with { Slots = 7, Sequence = 999 });
        Assert.Equal(2, Assert.Single((await admin.NodesAsync()).Nodes).Slots);
        await worker.ReportAsync(report with { Slots = 3, Sequence = 1001 });
        Assert.Equal(3, Assert.Single((await admin.NodesAsync()).Nodes).Slots);
    }

    [Fact]
    public async Task Logs_of_attempts_that_never_were_are_refused_and_gaps_are_not_stored()
    {
        using CoordinatorClient alpha = Open.Client("a"), worker = Open.Client("w");
        JobView job = await alpha.SubmitAsync(new SubmitRequest { Config = Open.Home.Job() });
        await Assert.ThrowsAsync<CoordinatorException>(() => worker.SendLogAsync(new RankName(job.Id, 1, 0), LogStream.Stdout, 0, "x"u8.ToArray()));
        Assert.Equal(HttpStatusCode.NotFound, await Open.StatusAsync("w", HttpMethod.Put, "/v1/jobs/nobody-0000/attempts/1/ranks/0/stdout?offset=0"));
        Assert.Equal(HttpStatusCode.NotFound, await Open.StatusAsync("w", HttpMethod.Put, $"/v1/jobs/{job.Id}/attempts/0/ranks/0/stdout?offset=-1"));
        Assert.Equal(HttpStatusCode.NotFound, await Open.StatusAsync("w", HttpMethod.Put, $"/v1/jobs/{job.Id}/attempts/0/ranks/5/stdout?offset=0"));
    }

    /// <summary>They are kept, as all logs are, but it is not for them to say how the job goes.</summary>
    [Fact]
    public async Task Metrics_that_an_older_attempt_sends_late_are_not_the_job_s()
    {
        using CoordinatorClient alpha = Open.Client("a"), worker = Open.Client("w");
        JobView job = await alpha.SubmitAsync(new SubmitRequest { Config = Open.Home.Job() });
        var report = new NodeReport { Node = "n1", Slots = 1 };
        RankName first = await OrderedAsync(1), second;
        Assert.Equal(0, await worker.SendLogAsync(first, LogStream.Metrics, 7, "{\"step\":9}\n"u8.ToArray()));
        report = report with { Ranks = [new RankState { Name = first, Process = new ProcessIdentity { Pid = 1, StartTime = 1 }, LastWords = "killed" }] };
        second = await OrderedAsync(2);
        await worker.SendLogAsync(second, LogStream.Metrics, 0, "{\"step\":1}\nno record\n{\"step\":\"x\"}\n{\"step\":[],\"time\":5}\n{\"step\":2}\n"u8.ToArray());
        await worker.SendLogAsync(first, LogStream.Metrics, 0, "{\"step\":1,\"loss\":0.5}\n"u8.ToArray());

        Assert.Equal(HttpStatusCode.NotFound, await Open.StatusAsync("w", HttpMethod.Put, $"/v1/jobs/{job.Id}/attempts/0/ranks/0/metrics?offset=0"));
        using HttpResponseMessage answer = await Open.SendAsync("a", HttpMethod.Get, $"/v1/jobs/{job.Id}/series");
        Assert.Contains("\"last\":2", (await answer.Content.ReadAsStringAsync()).Replace(" ", "", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.Equal(HttpStatusCode.OK, await Open.StatusAsync("a", HttpMethod.Get, $"/v1/jobs/{job.Id}/series?from=100&to=1"));

        async Task<RankName> OrderedAsync(int attempt)
        {
            for (int i = 0; i < 200; i++)
            {
                report = report with { Sequence = report.Sequence + 1 };
                if ((await worker.ReportAsync(report)).Ranks.FirstOrDefault(rank => rank.Name.Attempt == attempt) is { } rank)
                {
                    return rank.Name;
                }
                await Task.Delay(50);
            }
            throw new TimeoutException($"attempt {attempt} was not ordered");
        }
    }

    private Socket Connect()
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Connect(IPEndPoint.Parse(string.Create(CultureInfo.InvariantCulture, $"{Open.Address.Host}:{Open.Address.Port}")));
        return socket;
    }

    private static async Task UntilClosedAsync(Socket socket, CancellationToken cancellationToken)
    {
        byte[] answer = new byte[4096];
        try
        {
            while (await socket.ReceiveAsync(answer, cancellationToken) > 0)
            {
            }
        }
        catch (SocketException)
        {
        }
    }

    private static async Task<string> ReadAsync(Socket socket)
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        byte[] answer = new byte[4096];
        return Encoding.Latin1.GetString(answer, 0, await socket.ReceiveAsync(answer, limit.Token));
    }
}
