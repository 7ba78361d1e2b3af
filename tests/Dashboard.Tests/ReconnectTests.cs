using Microsoft.Playwright;
using Trainer.Contracts;
using static Microsoft.Playwright.Assertions;

namespace Dashboard.Tests;

/// <summary>A coordinator that is killed and comes back finds the open pages where they were.</summary>
[Collection(SharedSite.Name)]
public sealed class ReconnectTests(SiteFixture fixture) : SharedSiteTests(fixture)
{
    [Fact]
    public async Task Open_pages_go_on_after_a_restart_and_nobody_signs_in_again()
    {
        await using Site site = await Site.StartAsync();
        JobView job = await site.SubmitAsync("outlives", "training.steps=100000", "evaluation.every=100000", "samples.every=100000");
        await site.UntilAsync(job.Id, view => view.Step > 3);
        await using Visit list = await Browser.VisitAsync(site);
        IPage page = await list.Context.NewPageAsync();
        await page.GotoAsync($"/jobs/{job.Id}");
        await Expect(page.Locator("#connection")).ToHaveTextAsync("Live");
        IPage compare = await list.Context.NewPageAsync();
        await compare.GotoAsync($"/compare?jobs={job.Id},{job.Id}");
        await Expect(compare.Locator("tbody tr")).ToHaveCountAsync(1);
        await list.Page.BringToFrontAsync();
        await Expect(list.Page.Locator("#connection")).ToHaveTextAsync("Live");
        await list.Page.EvaluateAsync("window.mark = 1");
        await page.EvaluateAsync("window.mark = 1");

        site.KillServer();
        await Expect(page.Locator("#connection")).ToHaveTextAsync("Reconnecting …");
        await Expect(list.Page.Locator("#connection")).ToHaveTextAsync("Reconnecting …");
        await Expect(compare.Locator(".tools .note")).ToHaveTextAsync("The coordinator does not answer.");
        await site.ServeAsync();

        await Expect(list.Page.Locator("#connection")).ToHaveTextAsync("Live");
        await Expect(page.Locator("#connection")).ToHaveTextAsync("Live");
        await Expect(page.Locator(".events")).ToContainTextAsync("the coordinator was started again");
        await Expect(compare.Locator(".tools .note")).ToBeEmptyAsync();
        await Expect(compare.Locator("tbody tr")).ToHaveCountAsync(1);
        Assert.EndsWith($"/compare?jobs={job.Id},{job.Id}", compare.Url, StringComparison.Ordinal);
        int before = await StepAsync();
        await Expect(page.Locator(".share")).Not.ToContainTextAsync($"step {before:N0} of");
        Assert.True(await StepAsync() > before);
        JobView next = await site.SubmitAsync("alpha", paused: true, "comes-later");
        await Expect(list.Page.GetByRole(AriaRole.Link, new() { Name = next.Id.Value })).ToBeVisibleAsync();
        Assert.Equal(1, await list.Page.EvaluateAsync<int>("window.mark"));
        Assert.Equal(1, await page.EvaluateAsync<int>("window.mark"));
        await site.Client().CancelAsync(job.Id.Value);
        await Expect(page.Locator(".job-head .state")).ToHaveTextAsync("Cancelled");

        async Task<int> StepAsync() => (await page.EvaluateAsync<int>("Number(/^step ([\\d,]+)/.exec(document.querySelector('.share').textContent)[1].replaceAll(',', ''))"));
    }
}
