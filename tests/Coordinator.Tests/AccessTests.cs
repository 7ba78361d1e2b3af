using System.Net;
using System.Text.Json.Nodes;
using Trainer.Contracts;
using Trainer.Coordinator;

namespace Coordinator.Tests;

/// <summary>Over TCP a token decides who sees and does what; a refusal tells nothing.</summary>
public sealed class AccessTests : IAsyncLifetime
{
    private OpenCoordinator? _open;

    private OpenCoordinator Open => _open!;

    public async Task InitializeAsync() => _open = await OpenCoordinator.StartAsync();

    public async Task DisposeAsync() => await Open.DisposeAsync();

    [Fact]
    public async Task Neither_reasons_nor_nodes_tell_what_runs_and_fails_of_another_project()
    {
        using CoordinatorClient alpha = Open.Client("a"), beta = Open.Client("b"), admin = Open.Client("x"), worker = Open.Client("w");
        var report = new NodeReport { Node = "n1", Slots = 1 };
        JobView mine = await alpha.SubmitAsync(new SubmitRequest { Config = Open.Home.Job("secret") });
        RankName? rank = null;
        await UntilAsync(async () => (rank = (await ReportAsync()).Ranks.FirstOrDefault()?.Name) is not null);
        JobView theirs = await beta.SubmitAsync(new SubmitRequest { Config = Open.Home.Job() });
        await UntilAsync(async () => (await beta.GetAsync(theirs.Id.Value)).Reason?.Contains("0 of 1 free", StringComparison.Ordinal) == true);
        Assert.DoesNotContain("secret", (await beta.GetAsync(theirs.Id.Value)).Reason, StringComparison.Ordinal);

        report = report with { Ranks = [new RankState { Name = rank!, Process = new ProcessIdentity { Pid = 1, StartTime = 1 }, LastWords = "a secret word" }] };
        await UntilAsync(async () => await ReportAsync() is not null && Assert.Single((await admin.NodesAsync()).Nodes).LastStrike?.Contains("a secret word", StringComparison.Ordinal) == true);
        NodeView told = Assert.Single((await beta.NodesAsync()).Nodes);
        Assert.Equal((1, null), (told.Strikes, told.LastStrike));

        Task<NodeOrders> ReportAsync() => worker.ReportAsync(report = report with { Sequence = report.Sequence + 1 });

        static async Task UntilAsync(Func<Task<bool>> holds)
        {
            for (int i = 0; !await holds(); i++)
            {
                Assert.True(i < 200, "it did not come to be");
                await Task.Delay(50);
            }
        }
    }

    [Fact]
    public async Task A_token_of_one_project_sees_nothing_of_another()
    {
        using CoordinatorClient alpha = Open.Client("a"), beta = Open.Client("b"), admin = Open.Client("x");
        JobView job = await alpha.SubmitAsync(new SubmitRequest { Config = Open.Home.Job("secret"), IdempotencyKey = "k" });
        JobView other = await beta.SubmitAsync(new SubmitRequest { Config = Open.Home.Job("secret"), IdempotencyKey = "k" });

        Assert.NotEqual(job.Id, other.Id);
        Assert.Equal("alpha", job.Project);
        Assert.Equal([other.Id], (await beta.ListAsync()).Jobs.Select(view => view.Id));
        Assert.Equal(2, (await admin.ListAsync()).Jobs.Length);
        var ofJobs = (await Open.OperationsAsync(job.Id)).Where(operation => operation.Route.Contains("{job}", StringComparison.Ordinal) && IsFor(operation.Told, "user")).ToArray();
        Assert.True(ofJobs.Length >= 6);
        foreach ((HttpMethod method, string path, _, _) in ofJobs)
        {
            using HttpResponseMessage refused = await Open.SendAsync("b", method, path, "{\"priority\": 1}");
            Assert.True(refused.StatusCode == HttpStatusCode.NotFound, $"{method} {path}: {refused.StatusCode}");
            string text = await refused.Content.ReadAsStringAsync();
            Assert.DoesNotContain("alpha", text, StringComparison.Ordinal);
            Assert.DoesNotContain(job.Id.Value, text.Replace($"there is no job \\u0022{job.Id}\\u0022", "", StringComparison.Ordinal), StringComparison.Ordinal);
        }
        Assert.Equal(JobStatus.Cancelled, (await alpha.CancelAsync(job.Id.Value)).Status);
    }

    [Fact]
    public async Task Without_a_token_nothing_but_the_health_is_told()
    {
        var guarded = (await Open.OperationsAsync(new JobId("some-job1"))).Where(operation => operation.Told["security"] is not null).ToArray();
        Assert.True(guarded.Length >= 18);
        foreach ((HttpMethod method, string path) in guarded.Select(operation => (operation.Method, operation.Path)).Append((HttpMethod.Get, "/nothing")))
        {
            foreach (string? token in new[] { null, "wrong", "" })
            {
                using HttpResponseMessage refused = await Open.SendAsync(token, method, path);
                Assert.True(refused.StatusCode == HttpStatusCode.Unauthorized, $"{method} {path}: {refused.StatusCode}");
                Assert.Contains("a valid token is needed", await refused.Content.ReadAsStringAsync(), StringComparison.Ordinal);
            }
        }
        Assert.Equal(HttpStatusCode.OK, await Open.StatusAsync(null, HttpMethod.Get, "/health"));
        Assert.Equal(HttpStatusCode.OK, await Open.StatusAsync(null, HttpMethod.Get, "/ready"));
    }

    /// <summary>The endpoints without a token are these and no others; every mapped one is told.</summary>
    [Fact]
    public async Task What_is_open_is_listed_here()
    {
        Assert.Equal(["/assets/{file}", "/health", "/openapi.json", "/ready", "/session", "/sign-in"],
            (await Open.OperationsAsync(new JobId("some-job1"))).Where(operation => operation.Told["security"] is null).Select(operation => operation.Route));
        Assert.Equal(HttpStatusCode.NotFound, await Open.StatusAsync("x", HttpMethod.Get, "/nothing"));
        Assert.Equal(HttpStatusCode.NotFound, await Open.StatusAsync("a", HttpMethod.Get, "/nothing"));
    }

    /// <summary>What each role may not do is refused at every endpoint before the body is read.</summary>
    [Theory]
    [InlineData("a", "user")]
    [InlineData("w", "worker")]
    [InlineData("m", "monitor")]
    public async Task A_role_is_refused_wherever_it_is_not_named(string token, string role)
    {
        var others = (await Open.OperationsAsync(new JobId("some-job1"))).Where(operation => operation.Told["security"] is not null && !IsFor(operation.Told, role)).ToArray();
        Assert.NotEmpty(others);
        foreach ((HttpMethod method, string path, _, _) in others)
        {
            Assert.True(await Open.StatusAsync(token, method, path, "not json") == HttpStatusCode.Forbidden, $"{method} {path}");
        }
    }

    [Fact]
    public async Task Each_role_does_its_own_and_no_more()
    {
        Assert.Equal(HttpStatusCode.Forbidden, await Open.StatusAsync("w", HttpMethod.Get, "/v1/jobs"));
        Assert.Equal(HttpStatusCode.Forbidden, await Open.StatusAsync("w", HttpMethod.Post, "/v1/stop"));
        Assert.Equal(HttpStatusCode.Forbidden, await Open.StatusAsync("a", HttpMethod.Post, "/v1/stop"));
        Assert.Equal(HttpStatusCode.Forbidden, await Open.StatusAsync("a", HttpMethod.Post, "/v1/nodes/n1/report"));
        Assert.Equal(HttpStatusCode.Forbidden, await Open.StatusAsync("a", HttpMethod.Post, "/v1/nodes/n1/drain"));
        Assert.Equal(HttpStatusCode.Forbidden, await Open.StatusAsync("a", HttpMethod.Put, "/v1/jobs/some-job1/attempts/1/ranks/0/stdout?offset=0"));
        Assert.Equal(HttpStatusCode.OK, await Open.StatusAsync("a", HttpMethod.Get, "/v1/nodes"));
    }

    [Fact]
    public async Task A_worker_of_another_contract_is_told_to_upgrade_and_wrong_names_are_refused()
    {
        Assert.Contains("upgrade the worker", await TextAsync(HttpStatusCode.UpgradeRequired, "n1", """{"contract": 0, "node": "n1", "slots": 1}"""), StringComparison.Ordinal);
        Assert.Contains("upgrade the coordinator", await TextAsync(HttpStatusCode.UpgradeRequired, "n1", """{"contract": 9, "node": "n1", "slots": 1}"""), StringComparison.Ordinal);
        Assert.Contains("upgrade the coordinator",
            await TextAsync(HttpStatusCode.UpgradeRequired, "n1", """{"what this version cannot read": 1}""", "?contract=9"), StringComparison.Ordinal);
        await TextAsync(HttpStatusCode.BadRequest, "n1", """{"contract": 1, "node": "n2", "pool": "default", "slots": 1, "ranks": []}""");
        await TextAsync(HttpStatusCode.BadRequest, "..%2F..%2Fetc", """{"contract": 1, "node": "../../etc", "pool": "default", "slots": 1, "ranks": []}""");
        await TextAsync(HttpStatusCode.BadRequest, "n1", """{"contract": 1, "node": "n1", "pool": "default", "slots": -1, "ranks": []}""");
        await TextAsync(HttpStatusCode.BadRequest, "n1", """{"node": "n1", "slo""");
        await TextAsync(HttpStatusCode.BadRequest, "n1", """{"contract": 1, "node": "n1", "pool": "default", "slots": 1}""");
        await TextAsync(HttpStatusCode.BadRequest, "n1", """{"contract": 1, "node": "n1", "slots": 1, "ranks": []}""");
        await TextAsync(HttpStatusCode.BadRequest, "n1", "null");
        await TextAsync(HttpStatusCode.RequestEntityTooLarge, "n1", new string(' ', 3 << 20));
        using CoordinatorClient admin = Open.Client("x");
        Assert.Empty((await admin.NodesAsync()).Nodes);

        async Task<string> TextAsync(HttpStatusCode expected, string node, string body, string query = "")
        {
            using HttpResponseMessage response = await Open.SendAsync("w", HttpMethod.Post, $"/v1/nodes/{node}/report{query}", body);
            string text = await response.Content.ReadAsStringAsync();
            Assert.True(response.StatusCode == expected, $"{response.StatusCode} for {body[..Math.Min(60, body.Length)]}: {text}");
            return text;
        }
    }

    [Theory]
    [InlineData("[{\"sha256\": \"00\", \"role\": \"king\"}]", "role \"king\"")]
    [InlineData("[{\"sha256\": \"00\", \"role\": \"user\"}]", "needs a project")]
    [InlineData("{", "not a list of tokens")]
    [InlineData("[null]", "entry 1: null is no token")]
    [InlineData("[{\"sha256\": \"zz\", \"role\": \"admin\"}]", "entry 1: sha256 is not the 64 hexadecimal digits")]
    [InlineData("[{\"sha256\": null, \"role\": \"admin\"}]", "not a list of tokens")]
    public void A_wrong_list_of_tokens_is_named(string json, string expected)
    {
        string path = Path.Combine(Open.Home.Root, "wrong.json");
        File.WriteAllText(path, json);
        string message = Assert.Throws<ConfigException>(() => CoordinatorEndpoints.Create(["http://127.0.0.1:1"], path, null, null)).Message;
        Assert.Contains(path, message, StringComparison.Ordinal);
        Assert.Contains(expected, message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Submissions_that_draw_one_id_are_jobs_of_their_own()
    {
        JobSpec spec = new() { Id = new JobId("same-aaaa"), Name = "same", Config = JobConfigJson.Write(Open.Home.Job("same")), Submission = "1" };

        JobRecord first = (await Open.Grains.GetGrain<IJobGrain>(spec.Id.Value).Submit(spec))!;
        Assert.Null(await Open.Grains.GetGrain<IJobGrain>(spec.Id.Value).Submit(spec with { Submission = "2", Project = "beta" }));
        Assert.Equal(first.SubmittedAt, (await Open.Grains.GetGrain<IJobGrain>(spec.Id.Value).Submit(spec))!.SubmittedAt);

        JobRecord second = (await Open.Grains.GetGrain<ISubmissionGrain>("beta/key").Submit(spec with { Submission = "3", Project = "beta" }))!;
        Assert.StartsWith("same-", second.Id.Value, StringComparison.Ordinal);
        Assert.NotEqual(first.Id, second.Id);
        Assert.Equal(second.Id, (await Open.Grains.GetGrain<ISubmissionGrain>("beta/key").Submit(spec with { Submission = "4", Project = "beta" }))!.Id);
        Assert.Equal("default", (await Open.Grains.GetGrain<IJobGrain>(spec.Id.Value).Get())!.Spec.Project);
    }

    [Fact]
    public async Task A_quota_is_kept_and_seen_by_its_project_only()
    {
        using (CoordinatorClient admin = Open.Client("x"))
        {
            await admin.SetQuotaAsync("default", "alpha", 3);
            Assert.Contains(new ProjectUse { Project = "alpha", Used = 0, Quota = 3 }, Assert.Single((await admin.PoolsAsync()).Pools).Projects);
        }
        using CoordinatorClient alpha = Open.Client("a"), beta = Open.Client("b");
        Assert.Equal(3, Assert.Single(Assert.Single((await alpha.PoolsAsync()).Pools).Projects).Quota);
        Assert.Empty(Assert.Single((await beta.PoolsAsync()).Pools).Projects);
        JobView job = await alpha.SubmitAsync(new SubmitRequest { Config = Open.Home.Job("wide") with { Resources = new ResourcesConfig { Ranks = 4 } } });
        await TestHome.UntilAsync(alpha, job.Id, view => view.Reason?.Contains("the quota of project alpha (3 slots", StringComparison.Ordinal) == true);
        Assert.Equal(HttpStatusCode.BadRequest, await Open.StatusAsync("x", HttpMethod.Put, "/v1/pools/default/quotas/alpha", "{\"slots\": -1}"));
        Assert.Equal(HttpStatusCode.BadRequest, await Open.StatusAsync("x", HttpMethod.Put, "/v1/pools/..%2F/quotas/alpha", "{\"slots\": 1}"));
        // A bound goes when that is said, and not when nothing is said.
        Assert.Equal(HttpStatusCode.BadRequest, await Open.StatusAsync("x", HttpMethod.Put, "/v1/pools/default/quotas/alpha", "{}"));
        Assert.Equal(3, Assert.Single(Assert.Single((await alpha.PoolsAsync()).Pools).Projects).Quota);
        Assert.Equal(HttpStatusCode.OK, await Open.StatusAsync("x", HttpMethod.Put, "/v1/pools/default/quotas/alpha", "{\"slots\": null}"));
        Assert.DoesNotContain(Assert.Single((await alpha.PoolsAsync()).Pools).Projects, use => use.Quota is not null);
    }

    /// <summary>The roles are told in words: "For tokens of role user, admin."</summary>
    private static bool IsFor(JsonNode told, string role) => ((string)told["description"]!).Contains($" {role},", StringComparison.Ordinal);
}
