using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Orleans;
using Trainer.Contracts;
using Trainer.Coordinator;
using Trainer.EndToEnd.Tests;

namespace Coordinator.Tests;

/// <summary>A coordinator on TCP with the tokens "a" and "b" (users of projects alpha and beta), "w" (worker), "m" (monitor) and "x" (admin).</summary>
public sealed class OpenCoordinator : IAsyncDisposable
{
    private readonly CoordinatorHost _host;

    private OpenCoordinator(TestHome home, Uri address, CoordinatorHost host) => (Home, Address, _host) = (home, address, host);

    public TestHome Home { get; }

    public Uri Address { get; }

    public IGrainFactory Grains => _host.Grains;

    public static async Task<OpenCoordinator> StartAsync(CoordinatorOptions? options = null)
    {
        var home = new TestHome();
        string tokens = Path.Combine(home.Root, "tokens.json");
        AccessEntry[] entries = [Entry("a", "user", "alpha"), Entry("b", "user", "beta"), Entry("w", "worker", null), Entry("m", "monitor", null), Entry("x", "admin", null)];
        await File.WriteAllTextAsync(tokens, JsonSerializer.Serialize(entries, ContractsJson.Default.AccessEntryArray));
        var address = new Uri(string.Create(CultureInfo.InvariantCulture, $"http://127.0.0.1:{FreePort.Take()}"));
        return new OpenCoordinator(home, address,
            await CoordinatorHost.StartAsync(home.Home, options ?? new CoordinatorOptions(), CoordinatorEndpoints.Create([address.ToString()], tokens, null, null)));
    }

    public CoordinatorClient Client(string token) => CoordinatorClient.At(Address.ToString(), token);

    public async Task<HttpStatusCode> StatusAsync(string? token, HttpMethod method, string path, string body = "{}")
    {
        using HttpResponseMessage response = await SendAsync(token, method, path, body);
        return response.StatusCode;
    }

    public async Task<HttpResponseMessage> SendAsync(string? token, HttpMethod method, string path, string body = "{}")
    {
        using var client = new HttpClient();
        using var request = new HttpRequestMessage(method, new Uri(Address + path[1..]));
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

    /// <summary>Every operation that the coordinator tells of, with the names in its path filled in.</summary>
    public async Task<IReadOnlyList<(HttpMethod Method, string Path, string Route, JsonNode Told)>> OperationsAsync(JobId job)
    {
        using HttpResponseMessage response = await SendAsync(null, HttpMethod.Get, "/openapi.json");
        JsonNode document = JsonNode.Parse(await response.Content.ReadAsStringAsync())!;
        return [.. from path in document["paths"]!.AsObject()
                   from method in path.Value!.AsObject()
                   select (HttpMethod.Parse(method.Key), Fill(path.Key), path.Key, method.Value)];

        string Fill(string route) => route.Replace("{job}", job.Value, StringComparison.Ordinal).Replace("{attempt}", "1", StringComparison.Ordinal)
            .Replace("{rank}", "0", StringComparison.Ordinal).Replace("{stream}", "stdout", StringComparison.Ordinal).Replace("{step}", "1", StringComparison.Ordinal)
            .Replace("{node}", "n1", StringComparison.Ordinal).Replace("{pool}", "default", StringComparison.Ordinal).Replace("{project}", "alpha", StringComparison.Ordinal)
            .Replace("{name}", job.Value, StringComparison.Ordinal).Replace("{file}", "app.js", StringComparison.Ordinal);
    }

    public async ValueTask DisposeAsync()
    {
        await _host.DisposeAsync();
        Home.Dispose();
    }

    private static AccessEntry Entry(string token, string role, string? project) =>
        new() { Sha256 = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(token))), Role = role, Project = project };
}
