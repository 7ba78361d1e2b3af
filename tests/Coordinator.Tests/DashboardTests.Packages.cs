using System.Net;

namespace Coordinator.Tests;

public sealed class DashboardTests
{
    [Fact]
    public async Task Orleans_dashboard_is_for_admins()
    {
        await using OpenCoordinator open = await OpenCoordinator.StartAsync();
        foreach (string path in new[] { "/orleans/", "/orleans/DashboardCounters", "/orleans/GrainState?grainId=1&grainType=JobGrain" })
        {
            Assert.Equal(HttpStatusCode.Unauthorized, await open.StatusAsync(null, HttpMethod.Get, path));
            Assert.Equal(HttpStatusCode.Forbidden, await open.StatusAsync("a", HttpMethod.Get, path));
            Assert.Equal(HttpStatusCode.Forbidden, await open.StatusAsync("w", HttpMethod.Get, path));
        }
        Assert.Equal(HttpStatusCode.OK, await open.StatusAsync("x", HttpMethod.Get, "/orleans/DashboardCounters"));
        using var stranger = new HttpClient(new HttpClientHandler { AllowAutoRedirect = false });
        stranger.DefaultRequestHeaders.Add("Accept", "text/html");
        using HttpResponseMessage signIn = await stranger.GetAsync(new Uri(open.Address, "/orleans/"));
        Assert.Equal((HttpStatusCode.Redirect, "/sign-in?next=%2Forleans%2F"), (signIn.StatusCode, signIn.Headers.Location?.OriginalString));
        using HttpResponseMessage page = await open.SendAsync("x", HttpMethod.Get, "/orleans/");
        Assert.Contains("Orleans Dashboard", await page.Content.ReadAsStringAsync(), StringComparison.Ordinal);
    }
}
