using Microsoft.Playwright;
using Trainer.Contracts;
using static Microsoft.Playwright.Assertions;

namespace Dashboard.Tests;

/// <summary>Nodes, queues, quotas and grains, and what an admin may do with them.</summary>
[Collection(SharedSite.Name)]
public sealed class ClusterPageTests(SiteFixture fixture) : SharedSiteTests(fixture)
{
    [Fact]
    public async Task A_node_is_drained_and_comes_back()
    {
        await using Visit visit = await Browser.VisitAsync(Site, "admin");
        await visit.GoAsync("/cluster");
        ILocator node = visit.Page.Locator("tr", new() { HasText = "local" }).First;
        await Expect(node).ToContainTextAsync("ready");
        await Expect(node).ToContainTextAsync("of 1");
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Drain local" }).ClickAsync();
        await visit.Page.GetByRole(AriaRole.Dialog).GetByRole(AriaRole.Button, new() { Name = "Drain" }).ClickAsync();
        await Expect(node).ToContainTextAsync("drained");
        JobView waiting = await Site.SubmitAsync("alpha", false, "queues");
        await Expect(visit.Page.Locator(".scroll[aria-label=Queue]")).ToContainTextAsync(waiting.Id.Value);
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Undrain local" }).ClickAsync();
        await visit.Page.GetByRole(AriaRole.Dialog).GetByRole(AriaRole.Button, new() { Name = "Undrain" }).ClickAsync();
        await Expect(node).ToContainTextAsync("ready");
        await Site.UntilAsync(waiting.Id, JobStatus.Succeeded);
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task A_quota_is_set_and_seen()
    {
        await using Visit visit = await Browser.VisitAsync(Site, "admin");
        await visit.GoAsync("/cluster");
        // Of a project that nobody has heard of.
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Set a quota in pool default" }).ClickAsync();
        await visit.Page.GetByLabel("Project", new() { Exact = true }).FillAsync("gamma");
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Next" }).ClickAsync();
        await visit.Page.GetByLabel("Slots", new() { Exact = true }).FillAsync("2");
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Set quota" }).ClickAsync();
        await Expect(visit.Page.Locator("tr", new() { HasText = "gamma" })).ToContainTextAsync("2");
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Set the quota of gamma" }).ClickAsync();
        await visit.Page.GetByLabel("Slots", new() { Exact = true }).FillAsync("5");
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Set quota" }).ClickAsync();
        await Expect(visit.Page.Locator("tr", new() { HasText = "gamma" })).ToContainTextAsync("5");
        PoolView pool = Assert.Single((await Site.Client("admin").PoolsAsync()).Pools);
        Assert.Equal(5, pool.Projects.Single(use => use.Project == "gamma").Quota);
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Set the quota of gamma" }).ClickAsync();
        await visit.Page.GetByLabel("Slots", new() { Exact = true }).FillAsync("");
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Set quota" }).ClickAsync();
        await Expect(visit.Page.GetByText("gamma has no quota.")).ToBeVisibleAsync();
        pool = Assert.Single((await Site.Client("admin").PoolsAsync()).Pools);
        Assert.DoesNotContain(pool.Projects, use => use.Project == "gamma" && use.Quota is not null);
    }

    [Fact]
    public async Task Grains_are_counted()
    {
        await using Visit visit = await Browser.VisitAsync(Site, "admin");
        await visit.GoAsync("/cluster");
        ILocator grains = visit.Page.Locator(".scroll[aria-label=Grains]");
        foreach (string grain in new[] { "job", "jobindex", "node", "queue" })
        {
            ILocator row = grains.Locator("tr", new() { Has = visit.Page.GetByRole(AriaRole.Rowheader, new() { Name = grain, Exact = true }) });
            await Expect(row).ToBeVisibleAsync();
            string[] cells = [.. (await row.Locator("td").AllInnerTextsAsync()).Select(cell => cell.Trim())];
            Assert.True(int.Parse(cells[0].Replace(",", "", StringComparison.Ordinal), System.Globalization.CultureInfo.InvariantCulture) >= 1, string.Join('|', cells));
            Assert.True(int.Parse(cells[^1].Replace(",", "", StringComparison.Ordinal), System.Globalization.CultureInfo.InvariantCulture) >= 1, string.Join('|', cells));
        }
        Assert.Empty(visit.Problems);
    }
}
