using System.Net;
using System.Text;
using Microsoft.Playwright;
using Trainer.Contracts;
using static Microsoft.Playwright.Assertions;

namespace Dashboard.Tests;

/// <summary>Nobody sees anything without a token, and nobody but its own pages uses a session.</summary>
[Collection(SharedSite.Name)]
public sealed class SignInTests(SiteFixture fixture) : SharedSiteTests(fixture)
{
    [Theory]
    [InlineData("/")]
    [InlineData("/cluster")]
    [InlineData("/compare")]
    [InlineData("/jobs/anything")]
    public async Task Every_page_leads_to_signing_in_and_back(string path)
    {
        await using Visit visit = await Browser.VisitAsync(Site, token: null);
        await visit.Page.GotoAsync(path);
        await Expect(visit.Page.GetByLabel("Access token")).ToBeVisibleAsync();
        Assert.DoesNotContain(Done.Value, await visit.Page.ContentAsync(), StringComparison.Ordinal);
        await visit.Page.GetByLabel("Access token").FillAsync("alpha");
        await visit.Page.GetByLabel("Access token").PressAsync("Enter");
        await Expect(visit.Page.Locator(".page h1")).ToBeVisibleAsync();
        Assert.Equal(path, new Uri(visit.Page.Url).AbsolutePath);
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task Signing_in_leads_to_pages_of_this_site_only()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        string site = Site.Address.ToString();
        foreach ((string next, string heading) in new[] { ("/.//127.0.0.1:9", "No such page"), ($"{site}/127.0.0.1:9/x", "No such page"), ("http://127.0.0.1:9/", "Jobs"), ("http://[", "Jobs") })
        {
            await visit.Page.GotoAsync($"/sign-in?next={Uri.EscapeDataString(next)}");
            await Expect(visit.Page.Locator("h1")).ToHaveTextAsync(heading);
            Assert.StartsWith(site, visit.Page.Url, StringComparison.Ordinal);
        }
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task No_stream_or_answer_comes_without_a_session()
    {
        using var http = new HttpClient();
        foreach (string path in new[] { "v1/jobs", $"v1/jobs/{Done}", $"v1/jobs/{Done}/series", $"v1/jobs/{Done}/stream", "v1/nodes", "v1/grains", "session" })
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(Site.Address, path));
            request.Headers.Accept.ParseAdd("text/event-stream");
            request.Headers.Add("Cookie", $"trainer-session-{Site.Address.Port}=0000");
            using HttpResponseMessage answer = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
            Assert.True(answer.StatusCode == HttpStatusCode.Unauthorized, $"{path}: {answer.StatusCode}");
        }
    }

    [Fact]
    public async Task A_wrong_token_is_refused_in_words_and_a_workers_too()
    {
        await using Visit visit = await Browser.VisitAsync(Site, token: null);
        await visit.Page.GotoAsync("/");
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Sign in" }).ClickAsync();
        await Expect(visit.Page.GetByRole(AriaRole.Alert)).ToHaveTextAsync("Enter a token.");
        await visit.Page.GetByLabel("Access token").FillAsync("nonsense");
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Sign in" }).ClickAsync();
        await Expect(visit.Page.GetByRole(AriaRole.Alert)).ToContainTextAsync("not in the coordinator's list");
    }

    [Fact]
    public async Task The_cookie_is_no_token_and_no_script_reads_it()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        BrowserContextCookiesResult cookie = Assert.Single(await visit.Context.CookiesAsync());
        Assert.True(cookie.HttpOnly);
        Assert.Equal(SameSiteAttribute.Strict, cookie.SameSite);
        Assert.Equal(64, cookie.Value.Length);
        Assert.InRange(DateTimeOffset.FromUnixTimeSeconds((long)cookie.Expires) - DateTimeOffset.UtcNow, TimeSpan.FromDays(6), TimeSpan.FromDays(7.1));
        Assert.Equal("", await visit.Page.EvaluateAsync<string>("document.cookie"));
        // Neither the secret nor the token lies anywhere in the coordinator's files.
        foreach (string file in Directory.EnumerateFiles(Site.Place.Home, "*", SearchOption.AllDirectories)
            .Where(file => File.Exists(file) && Path.GetExtension(file) is not (".lock" or ".sock")))
        {
            byte[] content = await ReadAsync(file);
            Assert.True(content.AsSpan().IndexOf(Encoding.ASCII.GetBytes(cookie.Value)) < 0, file);
        }

        IPage other = await visit.Context.NewPageAsync();
        await other.GotoAsync("/");
        await Expect(other.Locator("#connection")).ToHaveTextAsync("Live");
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Sign out" }).ClickAsync();
        await Expect(visit.Page.GetByLabel("Access token")).ToBeVisibleAsync();
        // What another tab follows has ended, too.
        await Expect(other.GetByLabel("Access token")).ToBeVisibleAsync();
        // Who kept the cookie has nothing.
        Assert.Equal(HttpStatusCode.Unauthorized, await StatusAsync(HttpMethod.Get, "v1/jobs", cookie.Value));
    }

    [Fact]
    public async Task A_session_changes_nothing_for_pages_of_other_sites()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        string secret = Assert.Single(await visit.Context.CookiesAsync()).Value;
        JobView job = await Site.SubmitAsync("alpha", paused: true, "stays");
        string path = $"v1/jobs/{job.Id}/cancel";

        Assert.Equal(HttpStatusCode.Forbidden, await StatusAsync(HttpMethod.Post, path, secret));
        Assert.Equal(HttpStatusCode.Forbidden, await StatusAsync(HttpMethod.Post, path, secret, ("X-Trainer-Page", "1"), ("Origin", "http://evil.example")));
        Assert.Equal(HttpStatusCode.Forbidden, await StatusAsync(HttpMethod.Post, "session", null, ("Origin", "http://evil.example")));
        Assert.Equal(JobStatus.Paused, (await Site.Client().GetAsync(job.Id.Value)).Status);
        Assert.Equal(HttpStatusCode.OK, await StatusAsync(HttpMethod.Post, path, secret, ("X-Trainer-Page", "1"), ("Origin", Site.Address.ToString().TrimEnd('/'))));
    }

    [Fact]
    public async Task The_pages_may_load_nothing_from_elsewhere_nor_be_framed()
    {
        using var http = new HttpClient();
        foreach (string path in new[] { "sign-in", "assets/app.js", "assets/app.css" })
        {
            using HttpResponseMessage answer = await http.GetAsync(new Uri(Site.Address, path));
            string policy = Assert.Single(answer.Headers.GetValues("Content-Security-Policy"));
            Assert.Contains("default-src 'none'", policy, StringComparison.Ordinal);
            Assert.Contains("frame-ancestors 'none'", policy, StringComparison.Ordinal);
            Assert.DoesNotContain("unsafe", policy, StringComparison.Ordinal);
            Assert.Equal("nosniff", Assert.Single(answer.Headers.GetValues("X-Content-Type-Options")));
            Assert.Equal("no-referrer", Assert.Single(answer.Headers.GetValues("Referrer-Policy")));
            string tag = answer.Headers.ETag!.Tag;
            Assert.False(answer.Headers.ETag.IsWeak);
            using var again = new HttpRequestMessage(HttpMethod.Get, new Uri(Site.Address, path));
            again.Headers.TryAddWithoutValidation("If-None-Match", tag);
            using HttpResponseMessage unchanged = await http.SendAsync(again);
            Assert.Equal(HttpStatusCode.NotModified, unchanged.StatusCode);
        }
    }

    [Fact]
    public async Task A_user_of_another_project_sees_nothing()
    {
        JobView secret = await Site.SubmitAsync("alpha", paused: true, "secret-of-alpha");
        JobView own = await Site.SubmitAsync("beta", paused: true, "own-of-beta");
        await using Visit visit = await Browser.VisitAsync(Site, "beta");
        await Expect(visit.Page.GetByRole(AriaRole.Link, new() { Name = own.Id.Value })).ToBeVisibleAsync();
        Assert.DoesNotContain("alpha", await visit.Page.ContentAsync(), StringComparison.Ordinal);
        await visit.GoAsync($"/jobs/{secret.Id}");
        await Expect(visit.Page.Locator("h1")).ToHaveTextAsync("No such job");
        await visit.GoAsync($"/compare?jobs={secret.Id}");
        await Expect(visit.Page.Locator("h2", new() { HasText = "Compare jobs" })).ToBeVisibleAsync();
        await visit.GoAsync("/cluster");
        await Expect(visit.Page.GetByRole(AriaRole.Heading, new() { Name = "Pool default" })).ToBeVisibleAsync();
        Assert.Equal(0, await visit.Page.GetByRole(AriaRole.Heading, new() { Name = "Grains" }).CountAsync());
        Assert.Equal(0, await visit.Page.GetByRole(AriaRole.Button, new() { NameString = "Drain" }).CountAsync());
        Assert.DoesNotContain("alpha", (await visit.Page.Locator("main").InnerTextAsync()).Replace(secret.Id.Value, "", StringComparison.Ordinal), StringComparison.Ordinal);

        string cookie = Assert.Single(await visit.Context.CookiesAsync()).Value;
        foreach (string part in new[] { "", "/series", "/config", "/ranks", "/events", "/checkpoints", "/stream", "/checkpoints/1/archive", "/attempts/1/ranks/0/stdout" })
        {
            Assert.Equal(HttpStatusCode.NotFound, await StatusAsync(HttpMethod.Get, $"v1/jobs/{secret.Id}{part}", cookie));
        }
        Assert.Equal(HttpStatusCode.Forbidden, await StatusAsync(HttpMethod.Get, "v1/grains", cookie));
        Assert.Equal(HttpStatusCode.Forbidden, await StatusAsync(HttpMethod.Post, "v1/nodes/local/drain", cookie, ("X-Trainer-Page", "1")));
    }

    [Fact]
    public async Task The_command_prints_a_link_that_signs_its_owner_in_once()
    {
        // The coordinator of this machine listens for it where it did not before.
        string link = (await Site.Place.DoAsync("dashboard")).Trim();
        Assert.Matches(@"^http://127\.0\.0\.1:\d+/#code=[0-9a-f]{64}$", link);
        Assert.NotEqual(Site.Address.Port, new Uri(link).Port);
        await using Visit visit = await Browser.VisitAsync(Site, token: null);
        await visit.Page.GotoAsync(link);
        await Expect(visit.Page.Locator("#who")).ToHaveTextAsync("all projects");
        Assert.DoesNotContain("code", visit.Page.Url, StringComparison.Ordinal);
        string again = (await Site.Place.DoAsync("dashboard")).Trim();
        Assert.Equal(new Uri(link).Authority, new Uri(again).Authority);
        // In a tab that is there already only the fragment changes.
        string before = Assert.Single(await visit.Context.CookiesAsync()).Value;
        await visit.Page.GotoAsync(again);
        await Expect(visit.Page).ToHaveURLAsync(again[..again.IndexOf('#', StringComparison.Ordinal)]);
        await Expect(visit.Page.Locator("#who")).ToHaveTextAsync("all projects");
        Assert.NotEqual(before, Assert.Single(await visit.Context.CookiesAsync()).Value);

        await using Visit second = await Browser.VisitAsync(Site, token: null);
        await second.Page.GotoAsync(link);
        await Expect(second.Page.GetByRole(AriaRole.Alert)).ToContainTextAsync("has been used");
    }

    private async Task<HttpStatusCode> StatusAsync(HttpMethod method, string path, string? cookie, params (string Name, string Value)[] headers)
    {
        using var http = new HttpClient(new HttpClientHandler { UseCookies = false });
        using var request = new HttpRequestMessage(method, new Uri(Site.Address, path));
        if (cookie is not null)
        {
            request.Headers.Add("Cookie", $"trainer-session-{Site.Address.Port}={cookie}");
        }
        if (method == HttpMethod.Post)
        {
            request.Content = new StringContent("{\"token\": \"alpha\"}", Encoding.UTF8, "application/json");
        }
        foreach ((string name, string value) in headers)
        {
            request.Headers.Add(name, value);
        }
        using HttpResponseMessage answer = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
        return answer.StatusCode;
    }

    private static async Task<byte[]> ReadAsync(string file)
    {
        await using var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        using var content = new MemoryStream();
        await stream.CopyToAsync(content);
        return content.ToArray();
    }
}
