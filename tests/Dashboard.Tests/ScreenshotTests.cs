using Microsoft.Playwright;
using Trainer.Contracts;
using Trainer.EndToEnd.Tests;
using static Microsoft.Playwright.Assertions;

namespace Dashboard.Tests;

/// <summary>Pictures for docs/screenshots, of jobs that really run. They replace those in the repository with TRAINER_SCREENSHOTS=1.</summary>
[Collection(SharedSite.Name)]
public sealed class ScreenshotTests(SiteFixture fixture) : SharedSiteTests(fixture)
{
    [Fact]
    public async Task Every_page_in_both_themes()
    {
        string kept = Path.Combine(TrainerProgram.RepositoryRoot(), "docs", "screenshots");
        await using Site site = await Site.StartAsync();
        string folder = Environment.GetEnvironmentVariable("TRAINER_SCREENSHOTS") == "1" ? kept : site.Place.PathOf("screenshots");
        Directory.CreateDirectory(folder);

        JobView first = await site.SubmitAsync("qwen3-lora-r8", "training.steps=120", "evaluation.every=20", "optimizer.learning_rate=3e-4");
        await site.UntilAsync(first.Id, JobStatus.Succeeded);
        JobView failed = await site.SubmitAsync("qwen3-bad-path", "data.train[0].path=/data/missing.jsonl");
        await site.UntilAsync(failed.Id, JobStatus.Failed);
        JobView main = await site.SubmitAsync("qwen3-sft", "training.steps=3000", "evaluation.every=20", "checkpoint.every=20", "samples.every=50", "optimizer.learning_rate=1.5e-4");
        JobFiles files = site.Place.Files.Job(main.Id);
        await Workplace.StepAsync(files, 130);
        LinuxProcesses.Signal(Assert.Single(Workplace.Ranks(files)), LinuxProcesses.Kill);
        foreach (string name in new[] { "qwen3-lora-r16", "gsm8k-tiny", "qwen2.5-sft-long" })
        {
            await site.SubmitAsync(name == "gsm8k-tiny" ? "beta" : "alpha", false, name, $"priority={(name == "gsm8k-tiny" ? 5 : 0)}");
        }
        await site.SubmitAsync("alpha", true, "qwen3-next");
        await site.Client("admin").SetQuotaAsync("default", "alpha", 4);
        await Workplace.StepAsync(files, 260);

        foreach (ColorScheme theme in new[] { ColorScheme.Light, ColorScheme.Dark })
        {
            string suffix = theme is ColorScheme.Dark ? "-dark" : "";
            await using Visit visit = await Browser.VisitAsync(site, "admin", theme, 1360, 900);
            await Expect(visit.Page.Locator(".rows > .row")).ToHaveCountAsync(7);
            await TakeAsync(visit, folder, $"jobs{suffix}");
            await visit.GoAsync($"/jobs/{main.Id}");
            await Expect(visit.Page.Locator(".meter").First).ToBeVisibleAsync();
            await TakeAsync(visit, folder, $"job{suffix}");
            await visit.GoAsync($"/jobs/{main.Id}?tab=logs");
            await TakeAsync(visit, folder, $"logs{suffix}");
            await visit.GoAsync($"/jobs/{main.Id}?tab=checkpoints");
            await TakeAsync(visit, folder, $"checkpoints{suffix}");
            await visit.GoAsync("/cluster");
            await TakeAsync(visit, folder, $"cluster{suffix}");
            await visit.GoAsync($"/compare?jobs={first.Id},{main.Id}");
            await TakeAsync(visit, folder, $"compare{suffix}");
            await using Visit phone = await Browser.VisitAsync(site, "admin", theme, 380, 780);
            await Expect(phone.Page.Locator(".rows > .row")).ToHaveCountAsync(7);
            await TakeAsync(phone, folder, $"jobs-380{suffix}");
            await phone.GoAsync($"/jobs/{main.Id}");
            await TakeAsync(phone, folder, $"job-380{suffix}");
            await using Visit stranger = await Browser.VisitAsync(site, null, theme, 900, 600);
            await stranger.Page.GotoAsync("/");
            await TakeAsync(stranger, folder, $"sign-in{suffix}");
            Assert.Empty(visit.Problems.Concat(phone.Problems).Concat(stranger.Problems));
        }

        string[] taken = [.. Directory.EnumerateFiles(folder).Select(file => Path.GetFileName(file)).Order(StringComparer.Ordinal)];
        Assert.All(taken, name => Assert.True(new FileInfo(Path.Combine(folder, name)).Length > 8_000, $"{name} is blank"));
        Assert.Equal(taken, Directory.EnumerateFiles(kept).Select(file => Path.GetFileName(file)).Order(StringComparer.Ordinal));
    }

    private static async Task TakeAsync(Visit visit, string folder, string name)
    {
        await visit.Page.WaitForTimeoutAsync(900);
        await visit.Page.ScreenshotAsync(new PageScreenshotOptions { Path = Path.Combine(folder, $"{name}.png") });
    }
}
