using System.Text.Json;
using Microsoft.Playwright;
using Trainer.Contracts;
using Trainer.EndToEnd.Tests;
using static Microsoft.Playwright.Assertions;

namespace Dashboard.Tests;

/// <summary>Every page for people who see little, use no mouse, or have a small screen.</summary>
[Collection(SharedSite.Name)]
public sealed class AccessibilityTests(SiteFixture fixture) : SharedSiteTests(fixture)
{
    private static readonly Lazy<string> s_axe = new(() => File.ReadAllText(Path.Combine(TrainerProgram.RepositoryRoot(), "node_modules", "axe-core", "axe.min.js")));

    private string[] Pages =>
    [
        "/", "/cluster", $"/compare?jobs={Done}", $"/jobs/{Done}", $"/jobs/{Done}?tab=logs", $"/jobs/{Done}?tab=checkpoints",
        $"/jobs/{Done}?tab=samples", $"/jobs/{Done}?tab=config", "/?q=there-is-none",
    ];

    [Theory]
    [InlineData(ColorScheme.Light)]
    [InlineData(ColorScheme.Dark)]
    public async Task Axe_finds_nothing_serious(ColorScheme theme)
    {
        await using Visit visit = await Browser.VisitAsync(Site, "admin", theme);
        var found = new List<string>();
        foreach (string path in Pages)
        {
            await visit.GoAsync(path);
            await visit.Page.WaitForTimeoutAsync(400);
            found.AddRange(await FindingsAsync(visit.Page, path));
        }
        // Sought, because the site may have more jobs by now than a screen shows.
        await visit.Page.GotoAsync($"/?q={Done}");
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = $"Actions for {Done}" }).ClickAsync();
        found.AddRange(await FindingsAsync(visit.Page, "menu"));
        await visit.GoAsync("/cluster");
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Drain local" }).ClickAsync();
        found.AddRange(await FindingsAsync(visit.Page, "dialog"));
        await using Visit stranger = await Browser.VisitAsync(Site, token: null, theme);
        await stranger.Page.GotoAsync("/");
        found.AddRange(await FindingsAsync(stranger.Page, "sign in"));
        Assert.True(found.Count == 0, string.Join('\n', found));
    }

    [Fact]
    public async Task At_380_pixels_nothing_is_cut_off()
    {
        await using Visit visit = await Browser.VisitAsync(Site, "admin", width: 380, height: 720);
        foreach (string path in Pages)
        {
            await visit.GoAsync(path);
            await visit.Page.WaitForTimeoutAsync(300);
            Assert.True(await visit.Page.EvaluateAsync<int>("document.documentElement.scrollWidth") <= 380, path);
        }
        await visit.GoAsync($"/jobs/{Done}?tab=checkpoints");
        await Expect(visit.Page.GetByLabel("Download the checkpoint of step 30 as tar")).ToBeInViewportAsync();
        // What a job without metrics says has its room.
        JobView none = await Site.SubmitAsync("alpha", paused: true, "has-none");
        await Site.Client().CancelAsync(none.Id.Value);
        await visit.GoAsync($"/jobs/{none.Id}");
        ILocator empty = visit.Page.Locator(".charts .empty");
        await Expect(empty).ToContainTextAsync("No metricsThe job ended");
        Assert.True(await empty.EvaluateAsync<bool>("element => element.scrollHeight <= element.clientHeight && element.clientHeight > 40"));
        await visit.Page.SetViewportSizeAsync(320, 720);
        await visit.GoAsync("/");
        Assert.True(await visit.Page.EvaluateAsync<int>("document.documentElement.scrollWidth") <= 320);
        await visit.Page.SetViewportSizeAsync(380, 720);
        ILocator row = visit.Page.Locator(".rows > .row").First;
        await Expect(row.GetByRole(AriaRole.Link)).ToBeInViewportAsync();
        await Expect(row.GetByRole(AriaRole.Button)).ToBeInViewportAsync();
        await Expect(visit.Page.GetByRole(AriaRole.Button, new() { Name = "Sign out" })).ToBeInViewportAsync();
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task The_keyboard_reaches_and_does_everything()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        IPage page = visit.Page;
        await page.GotoAsync($"/?q={Done}");
        await page.GetByRole(AriaRole.Link, new() { Name = Done.Value }).WaitForAsync();
        await page.Keyboard.PressAsync("Tab");
        await Expect(page.GetByRole(AriaRole.Link, new() { Name = "Skip to content" })).ToBeFocusedAsync();

        await page.GetByRole(AriaRole.Button, new() { Name = $"Actions for {Done}" }).FocusAsync();
        await page.Keyboard.PressAsync("Enter");
        await Expect(page.GetByRole(AriaRole.Menuitem, new() { Name = "Open" })).ToBeFocusedAsync();
        await page.Keyboard.PressAsync("Escape");
        await Expect(page.GetByRole(AriaRole.Button, new() { Name = $"Actions for {Done}" })).ToBeFocusedAsync();
        await page.Keyboard.PressAsync("Enter");
        await page.Keyboard.PressAsync("Enter");
        await Expect(page.Locator("h1")).ToHaveTextAsync(Done.Value);
        await Expect(page.Locator("main")).ToBeFocusedAsync();

        await page.GetByRole(AriaRole.Tab, new() { Name = "Overview" }).FocusAsync();
        await page.Keyboard.PressAsync("ArrowRight");
        await Expect(page.GetByRole(AriaRole.Tab, new() { Name = "Logs" })).ToBeFocusedAsync();
        await Expect(page.GetByRole(AriaRole.Log)).ToContainTextAsync("step 30/30");
        await page.Keyboard.PressAsync("End");
        await Expect(page.GetByRole(AriaRole.Tab, new() { Name = "Configuration" })).ToBeFocusedAsync();
        await page.Keyboard.PressAsync("Home");
        await Expect(page.GetByRole(AriaRole.Tab, new() { Name = "Overview" })).ToBeFocusedAsync();
        await page.GoBackAsync();
        await Expect(page.Locator("h1")).ToHaveTextAsync("Jobs");
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task The_theme_that_was_chosen_stays()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        Assert.Equal("rgb(246, 247, 249)", await BackgroundAsync());
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Theme: as the system" }).ClickAsync();
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Theme: light" }).ClickAsync();
        await Expect(visit.Page.GetByRole(AriaRole.Button, new() { Name = "Theme: dark" })).ToBeVisibleAsync();
        await visit.Page.ReloadAsync();
        Assert.Equal("rgb(16, 18, 22)", await BackgroundAsync());

        Task<string> BackgroundAsync() => visit.Page.EvaluateAsync<string>("getComputedStyle(document.body).backgroundColor");
    }

    private static async Task<IEnumerable<string>> FindingsAsync(IPage page, string where)
    {
        await page.EvaluateAsync(s_axe.Value);
        JsonElement? violations = await page.EvaluateAsync<JsonElement>("""
            async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
              .filter(found => found.impact === "serious" || found.impact === "critical")
              .flatMap(found => found.nodes.slice(0, 3).map(node => `${found.id}: ${node.target} (${node.failureSummary})`))
            """);
        return [.. violations!.Value.EnumerateArray().Select(found => $"{where}: {found.GetString()}")];
    }
}
