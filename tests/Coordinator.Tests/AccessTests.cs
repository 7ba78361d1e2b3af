using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Trainer.Contracts;
using Trainer.Coordinator;

namespace Coordinator.Tests;

/// <summary>Over TCP a token decides who sees and does what; a refusal tells nothing.</summary>
public sealed class AccessTests : IAsyncLifetime
{
    private readonly TestHome _home = new();
    private CoordinatorHost? _host;
    private Uri? _address;

    public async Task InitializeAsync()
    {
        string tokens = Path.Combine(_home.Root, "tokens.json");
        AccessEntry[] entries = [Entry("a", "user", "alpha"), Entry("b", "user", "beta"), Entry("w", "worker", null), Entry("x", "admin", null)];
        await File.WriteAllTextAsync(tokens, JsonSerializer.Serialize(entries, ContractsJson.Default.AccessEntryArray));
        using (var listener = new TcpListener(IPAddress.Loopback, 0))
        {
            listener.Start();
            _address = new Uri($"http://{listener.LocalEndpoint}");
        }
        _host = await CoordinatorHost.StartAsync(_home.Home, new CoordinatorOptions(),
            CoordinatorEndpoints.Create([_address.ToString()], tokens, null, null));
    }

    public async Task DisposeAsync()
    {
        _home.Dispose();
        await _host!.DisposeAsync();
    }

    [Fact]
    public async Task A_token_of_one_project_sees_nothing_of_another()
    {
        using CoordinatorClient alpha = Client("a"), beta = Client("b"), admin = Client("x");
        JobView job = await alpha.SubmitAsync(new SubmitRequest { Config = _home.Job("secret"), IdempotencyKey = "k" });
        JobView other = await beta.SubmitAsync(new SubmitRequest { Config = _home.Job("secret"), IdempotencyKey = "k" });

        Assert.NotEqual(job.Id, other.Id);
        Assert.Equal("alpha", job.Project);
        Assert.Equal([other.Id], (await beta.ListAsync()).Jobs.Select(view => view.Id));
        Assert.Equal(2, (await admin.ListAsync()).Jobs.Length);
        foreach ((HttpMethod method, string path) in JobPaths(job.Id))
        {
            using HttpResponseMessage refused = await SendAsync("b", method, path, "{\"priority\": 1}");
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
        foreach ((HttpMethod method, string path) in JobPaths(new JobId("some-job1")).Concat(OtherPaths))
        {
            foreach (string? token in new[] { null, "wrong", "" })
            {
                using HttpResponseMessage refused = await SendAsync(token, method, path, "{}");
                Assert.True(refused.StatusCode == HttpStatusCode.Unauthorized, $"{method} {path}: {refused.StatusCode}");
                Assert.Contains("a valid token is needed", await refused.Content.ReadAsStringAsync(), StringComparison.Ordinal);
            }
        }
        using HttpResponseMessage health = await SendAsync(null, HttpMethod.Get, "/health", "");
        using HttpResponseMessage ready = await SendAsync(null, HttpMethod.Get, "/ready", "");
        Assert.Equal((HttpStatusCode.OK, HttpStatusCode.OK), (health.StatusCode, ready.StatusCode));
    }

    [Fact]
    public async Task Each_role_does_its_own_and_no_more()
    {
        Assert.Equal(HttpStatusCode.Forbidden, await StatusAsync("w", HttpMethod.Get, "/v1/jobs"));
        Assert.Equal(HttpStatusCode.Forbidden, await StatusAsync("w", HttpMethod.Post, "/v1/stop"));
        Assert.Equal(HttpStatusCode.Forbidden, await StatusAsync("a", HttpMethod.Post, "/v1/stop"));
        Assert.Equal(HttpStatusCode.Forbidden, await StatusAsync("a", HttpMethod.Post, "/v1/nodes/n1/report"));
        Assert.Equal(HttpStatusCode.Forbidden, await StatusAsync("a", HttpMethod.Post, "/v1/nodes/n1/drain"));
        Assert.Equal(HttpStatusCode.Forbidden, await StatusAsync("a", HttpMethod.Put, "/v1/jobs/some-job1/attempts/1/ranks/0/stdout?offset=0"));
        Assert.Equal(HttpStatusCode.OK, await StatusAsync("a", HttpMethod.Get, "/v1/nodes"));
    }

    [Fact]
    public async Task A_worker_of_another_contract_is_told_to_upgrade_and_wrong_names_are_refused()
    {
        Assert.Contains("upgrade the worker", await TextAsync(HttpStatusCode.UpgradeRequired, "n1", """{"contract": 0, "node": "n1", "slots": 1}"""), StringComparison.Ordinal);
        Assert.Contains("upgrade the coordinator", await TextAsync(HttpStatusCode.UpgradeRequired, "n1", """{"contract": 9, "node": "n1", "slots": 1}"""), StringComparison.Ordinal);
        await TextAsync(HttpStatusCode.BadRequest, "n1", """{"contract": 1, "node": "n2", "pool": "default", "slots": 1, "ranks": []}""");
        await TextAsync(HttpStatusCode.BadRequest, "..%2F..%2Fetc", """{"contract": 1, "node": "../../etc", "pool": "default", "slots": 1, "ranks": []}""");
        await TextAsync(HttpStatusCode.BadRequest, "n1", """{"contract": 1, "node": "n1", "pool": "default", "slots": -1, "ranks": []}""");
        await TextAsync(HttpStatusCode.BadRequest, "n1", """{"node": "n1", "slo""");
        await TextAsync(HttpStatusCode.BadRequest, "n1", """{"contract": 1, "node": "n1", "pool": "default", "slots": 1}""");
        await TextAsync(HttpStatusCode.BadRequest, "n1", """{"contract": 1, "node": "n1", "slots": 1, "ranks": []}""");
        await TextAsync(HttpStatusCode.BadRequest, "n1", "null");
        await TextAsync(HttpStatusCode.RequestEntityTooLarge, "n1", new string(' ', 3 << 20));
        using CoordinatorClient admin = Client("x");
        Assert.Empty((await admin.NodesAsync("default")).Nodes);

        async Task<string> TextAsync(HttpStatusCode expected, string node, string body)
        {
            using HttpResponseMessage response = await SendAsync("w", HttpMethod.Post, $"/v1/nodes/{node}/report", body);
            string text = await response.Content.ReadAsStringAsync();
            Assert.True(response.StatusCode == expected, $"{response.StatusCode} for {body[..Math.Min(60, body.Length)]}: {text}");
            return text;
        }
    }

    [Theory]
    [InlineData("[{\"sha256\": \"00\", \"role\": \"king\"}]", "role \"king\"")]
    [InlineData("[{\"sha256\": \"00\", \"role\": \"user\"}]", "needs a project")]
    [InlineData("{", "not a list of tokens")]
    public void A_wrong_list_of_tokens_is_named(string json, string expected)
    {
        string path = Path.Combine(_home.Root, "wrong.json");
        File.WriteAllText(path, json);
        string message = Assert.Throws<ConfigException>(() => CoordinatorEndpoints.Create(["http://127.0.0.1:1"], path, null, null)).Message;
        Assert.Contains(path, message, StringComparison.Ordinal);
        Assert.Contains(expected, message, StringComparison.Ordinal);
    }

    private static IEnumerable<(HttpMethod Method, string Path)> OtherPaths =>
    [
        (HttpMethod.Get, "/v1/info"), (HttpMethod.Post, "/v1/stop"), (HttpMethod.Get, "/v1/jobs"), (HttpMethod.Post, "/v1/jobs"), (HttpMethod.Get, "/v1/nodes"),
        (HttpMethod.Post, "/v1/nodes/n1/report"), (HttpMethod.Get, "/v1/nodes/n1/changes"), (HttpMethod.Post, "/v1/nodes/n1/drain"), (HttpMethod.Post, "/v1/nodes/n1/undrain"),
        (HttpMethod.Put, "/v1/jobs/some-job1/attempts/1/ranks/0/stdout?offset=0"), (HttpMethod.Get, "/nothing"),
    ];

    private static IEnumerable<(HttpMethod Method, string Path)> JobPaths(JobId job) =>
    [
        (HttpMethod.Get, $"/v1/jobs/{job}"), (HttpMethod.Post, $"/v1/jobs/{job}/cancel"), (HttpMethod.Post, $"/v1/jobs/{job}/pause"),
        (HttpMethod.Post, $"/v1/jobs/{job}/resume"), (HttpMethod.Post, $"/v1/jobs/{job}/priority"), (HttpMethod.Get, $"/v1/jobs/{job}/attempts/1/ranks/0/stdout"),
    ];

    private static AccessEntry Entry(string token, string role, string? project) =>
        new() { Sha256 = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(token))), Role = role, Project = project };

    private CoordinatorClient Client(string token) => CoordinatorClient.At(_address!.ToString(), token);

    private async Task<HttpStatusCode> StatusAsync(string token, HttpMethod method, string path)
    {
        using HttpResponseMessage response = await SendAsync(token, method, path, "{}");
        return response.StatusCode;
    }

    private async Task<HttpResponseMessage> SendAsync(string? token, HttpMethod method, string path, string body)
    {
        using var client = new HttpClient();
        using var request = new HttpRequestMessage(method, new Uri(_address + path[1..]));
        if (method != HttpMethod.Get)
        {
            request.Content = new StringContent(body, Encoding.UTF8, "application/json");
        }
        if (token is not null)
        {
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
        }
        return await client.SendAsync(request);
    }
}
