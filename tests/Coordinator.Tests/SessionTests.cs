using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Trainer.Contracts;

namespace Coordinator.Tests;

/// <summary>What a browser may do with a session, and for how long.</summary>
public sealed class SessionTests : IAsyncLifetime
{
    /// <summary>More than anybody may have.</summary>
    private const int Many = 80;

    private OpenCoordinator? _open;

    private OpenCoordinator Open => _open!;

    public async Task InitializeAsync() => _open = await OpenCoordinator.StartAsync();

    public async Task DisposeAsync() => await Open.DisposeAsync();

    [Theory]
    [InlineData("w", "worker")]
    [InlineData("m", "monitor")]
    public async Task Only_people_sign_in(string token, string role)
    {
        using HttpResponseMessage refused = await Open.SendAsync(null, HttpMethod.Post, "/session", $"{{\"token\": \"{token}\"}}");
        Assert.Equal(HttpStatusCode.Forbidden, refused.StatusCode);
        Assert.Contains($"a {role}\\u0027s token does not open the dashboard", await refused.Content.ReadAsStringAsync(), StringComparison.Ordinal);
        Assert.False(refused.Headers.Contains("Set-Cookie"));
    }

    [Fact]
    public async Task However_often_somebody_signs_in_others_stay_signed_in()
    {
        string admin = await SignInAsync("x"), first = await SignInAsync("a");
        string code = await InviteAsync("b");
        for (int i = 0; i < Many; i++)
        {
            await InviteAsync("a");
        }
        Assert.Equal(HttpStatusCode.OK, await StatusAsync(first, HttpMethod.Get, "/session"));
        for (int i = 0; i < Many; i++)
        {
            await SignInAsync("a");
        }

        Assert.Equal(HttpStatusCode.OK, await StatusAsync(admin, HttpMethod.Get, "/session"));
        Assert.Equal(HttpStatusCode.OK, await Open.StatusAsync(null, HttpMethod.Post, "/session", $"{{\"code\": \"{code}\"}}"));
        Assert.Equal(HttpStatusCode.OK, await StatusAsync(await SignInAsync("a"), HttpMethod.Get, "/session"));
        // What was found a moment ago is believed for two seconds.
        await Task.Delay(TimeSpan.FromSeconds(2.2));
        Assert.Equal(HttpStatusCode.Unauthorized, await StatusAsync(first, HttpMethod.Get, "/session"));
    }

    [Fact]
    public async Task Streams_and_waiting_requests_end_with_their_session()
    {
        using CoordinatorClient alpha = Open.Client("a");
        JobView job = await alpha.SubmitAsync(new SubmitRequest { Config = Open.Home.Job(), Paused = true });
        string cookie = await SignInAsync("a");
        using HttpResponseMessage rows = await SendAsync(cookie, HttpMethod.Get, "/v1/jobs", stream: true), events = await SendAsync(cookie, HttpMethod.Get, $"/v1/jobs/{job.Id}/stream", stream: true);
        Task<HttpStatusCode> log = StatusAsync(cookie, HttpMethod.Get, $"/v1/jobs/{job.Id}/attempts/1/ranks/0/stdout?wait=30");
        Task<string>[] ends = [rows.Content.ReadAsStringAsync(), events.Content.ReadAsStringAsync()];
        await Task.Delay(1500);
        Assert.DoesNotContain(ends, end => end.IsCompleted);
        Assert.False(log.IsCompleted);

        Assert.Equal(HttpStatusCode.NoContent, await StatusAsync(cookie, HttpMethod.Delete, "/session"));
        var watch = Stopwatch.StartNew();
        foreach (string told in await Task.WhenAll(ends).WaitAsync(TimeSpan.FromSeconds(10)))
        {
            Assert.Contains(job.Id.Value, told, StringComparison.Ordinal);
        }
        Assert.Equal(HttpStatusCode.Unauthorized, await log.WaitAsync(TimeSpan.FromSeconds(10)));
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 4);
    }

    /// <summary>A page whose name has become the address of a forwarded socket would otherwise be its owner.</summary>
    [Theory]
    [InlineData("coordinator", true)]
    [InlineData("localhost:8080", true)]
    [InlineData("127.0.0.1:8080", true)]
    [InlineData("[::1]:8080", true)]
    [InlineData("evil.example:8080", false)]
    [InlineData("127.0.0.1.evil.example", false)]
    [InlineData("192.168.0.7", false)]
    public async Task Over_the_socket_only_local_names_are_answered(string host, bool allowed)
    {
        using var http = new HttpClient(new SocketsHttpHandler
        {
            ConnectCallback = async (_, cancellationToken) =>
            {
                var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                await socket.ConnectAsync(new UnixDomainSocketEndPoint(Open.Home.Home.Socket), cancellationToken);
                return new NetworkStream(socket, ownsSocket: true);
            },
        });
        foreach (string path in new[] { "v1/jobs", "session", "health" })
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, $"http://coordinator/{path}");
            request.Headers.Host = host;
            request.Headers.TryAddWithoutValidation("Origin", $"http://{host}");
            using HttpResponseMessage answer = await http.SendAsync(request);
            Assert.Equal(allowed ? HttpStatusCode.OK : HttpStatusCode.Forbidden, answer.StatusCode);
        }
    }

    [Fact]
    public async Task What_is_not_there_leads_people_to_sign_in_and_then_to_a_page()
    {
        using HttpResponseMessage stranger = await SendAsync("", HttpMethod.Get, "/nope?x=1", accept: "text/html");
        Assert.Equal((HttpStatusCode.Redirect, "/sign-in?next=%2Fnope%3Fx%3D1"), (stranger.StatusCode, stranger.Headers.Location!.OriginalString));
        using HttpResponseMessage page = await SendAsync(await SignInAsync("a"), HttpMethod.Get, "/nope", accept: "text/html");
        Assert.Equal((HttpStatusCode.NotFound, "text/html"), (page.StatusCode, page.Content.Headers.ContentType!.MediaType));
        using HttpResponseMessage program = await Open.SendAsync("a", HttpMethod.Get, "/nope");
        Assert.Equal((HttpStatusCode.NotFound, "application/json"), (program.StatusCode, program.Content.Headers.ContentType!.MediaType));

        using HttpResponseMessage jobs = await Open.SendAsync("a", HttpMethod.Get, "/v1/jobs"), refused = await Open.SendAsync(null, HttpMethod.Get, "/v1/jobs");
        foreach (HttpResponseMessage answer in new[] { stranger, page, program, jobs, refused })
        {
            Assert.Contains("frame-ancestors 'none'", Assert.Single(answer.Headers.GetValues("Content-Security-Policy")), StringComparison.Ordinal);
            Assert.Equal("nosniff", Assert.Single(answer.Headers.GetValues("X-Content-Type-Options")));
        }
        Assert.All([stranger, program, jobs, refused], answer => Assert.True(answer.Headers.CacheControl!.NoStore));
    }

    /// <returns>The cookie.</returns>
    private async Task<string> SignInAsync(string token)
    {
        using HttpResponseMessage answer = await SendAsync("", HttpMethod.Post, "/session", body: $"{{\"token\": \"{token}\"}}");
        Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
        return Assert.Single(answer.Headers.GetValues("Set-Cookie")).Split(';')[0];
    }

    private async Task<string> InviteAsync(string token)
    {
        using HttpResponseMessage answer = await Open.SendAsync(token, HttpMethod.Post, "/session/codes");
        return JsonSerializer.Deserialize(await answer.Content.ReadAsStringAsync(), ContractsJson.Default.SignInCode)!.Code;
    }

    private async Task<HttpStatusCode> StatusAsync(string cookie, HttpMethod method, string path)
    {
        using HttpResponseMessage answer = await SendAsync(cookie, method, path);
        return answer.StatusCode;
    }

    private async Task<HttpResponseMessage> SendAsync(string cookie, HttpMethod method, string path, bool stream = false, string? accept = null, string? body = null)
    {
        using var http = new HttpClient(new HttpClientHandler { UseCookies = false, AllowAutoRedirect = false });
        using var request = new HttpRequestMessage(method, new Uri(Open.Address, path));
        request.Headers.Add("X-Trainer-Page", "1");
        if (cookie.Length > 0)
        {
            request.Headers.Add("Cookie", cookie);
        }
        if (stream || accept is not null)
        {
            request.Headers.Accept.ParseAdd(stream ? "text/event-stream" : accept!);
        }
        if (body is not null)
        {
            request.Content = new StringContent(body, Encoding.UTF8, "application/json");
        }
        return await http.SendAsync(request, stream ? HttpCompletionOption.ResponseHeadersRead : HttpCompletionOption.ResponseContentRead);
    }
}
