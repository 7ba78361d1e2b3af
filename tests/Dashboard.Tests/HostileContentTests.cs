using System.Text;
using System.Text.Json;
using Microsoft.Playwright;
using Trainer.Contracts;
using static Microsoft.Playwright.Assertions;

namespace Dashboard.Tests;

/// <summary>What jobs, ranks and models write is shown as it is and does nothing.</summary>
[Collection(SharedSite.Name)]
public sealed class HostileContentTests(SiteFixture fixture) : SharedSiteTests(fixture)
{
    private const string Html = "<img src=x onerror=\"window.pwned=1;alert(1)\"><script>window.pwned=1</script>&amp;";

    [Fact]
    public async Task A_log_is_text_whatever_is_in_it()
    {
        JobView job = await Site.SubmitAsync("hostile-log", "training.steps=4");
        await Site.UntilAsync(job.Id, JobStatus.Succeeded);
        await using (FileStream log = new(Site.Place.Files.Job(job.Id).Attempt(1).Stdout, FileMode.Append, FileAccess.Write, FileShare.ReadWrite))
        {
            log.Write(Encoding.UTF8.GetBytes($"\n{Html}\n"));
            log.Write("\x1b[1;31mred\x1b[0m and \x1b[32mgreen\x1b[0m \x1b]0;title\x07\x1b[2J\x1b[999;999Hmoved\x1b[?25l\n"u8);
            log.Write([.. "bad utf8: "u8, 0xFF, 0xC0, 0xAF, 0xED, 0xA0, 0x80, .. "!\n"u8]);
            log.Write(Encoding.UTF8.GetBytes("turned \u202etxt.exe\u2066 back\0 bell\a\n"));
            log.Write("  1 % done\r 50 % done\r100 % ready\r\n"u8);
            log.Write(Encoding.UTF8.GetBytes("endless " + new string('x', 1 << 20) + "\nafter it\n"));
        }
        await using Visit visit = await Browser.VisitAsync(Site);
        await visit.GoAsync($"/jobs/{job.Id}?tab=logs");
        ILocator log_ = visit.Page.GetByRole(AriaRole.Log);
        await Expect(log_).ToContainTextAsync("after it");
        // To the beginning of the endless line, and with it to what is before.
        ILocator earlier = visit.Page.GetByRole(AriaRole.Button, new() { Name = "Load earlier lines" });
        await earlier.ClickAsync();
        await Expect(earlier).ToBeHiddenAsync();
        await visit.Page.GetByLabel("Search this log").FillAsync("onerror");
        await Expect(log_).ToContainTextAsync(Html);
        string text = await log_.InnerTextAsync();
        Assert.Contains("red and green moved", text, StringComparison.Ordinal);
        Assert.DoesNotContain("title", text, StringComparison.Ordinal);
        Assert.DoesNotContain('\x1b', text);
        Assert.DoesNotContain('\u202e', text);
        Assert.Contains("bad utf8: \ufffd", text, StringComparison.Ordinal);
        Assert.Contains("100 % ready", text, StringComparison.Ordinal);
        Assert.DoesNotContain("% done", text, StringComparison.Ordinal);
        Assert.Contains("more characters", text, StringComparison.Ordinal);
        Assert.InRange(text.Split('\n').Max(line => line.Length), 1, 2_200);
        Assert.Equal("rgb(191, 42, 42)", await visit.Page.Locator(".line .fg1").EvaluateAsync<string>("element => getComputedStyle(element).color"));
        await HarmlessAsync(visit);
    }

    [Fact]
    public async Task Samples_prompts_and_configurations_are_text()
    {
        JobView job = await Site.SubmitAsync("hostile-samples", "training.steps=4", "samples.every=1", $"samples.prompts=[{JsonSerializer.Serialize(Html)}]");
        await Site.UntilAsync(job.Id, JobStatus.Succeeded);
        string[] lines =
        [
            JsonSerializer.Serialize(new { step = 5, prompt = Html, text = Html + "\n\u001b[31mred\u001b[0m" }),
            "{\"step\": 6, \"prompt\": {\"toString\": 1}, \"text\": [\"<b>x</b>\"]}",
            "not json", "[]", "null", "{\"step\": \"5\", \"prompt\": \"p\", \"text\": \"t\"}",
            JsonSerializer.Serialize(new { step = 7, prompt = "long", text = new string('y', 1 << 20) }),
        ];
        await File.AppendAllLinesAsync(Site.Place.Files.Job(job.Id).Samples, lines);
        await using Visit visit = await Browser.VisitAsync(Site);
        await visit.GoAsync($"/jobs/{job.Id}?tab=samples");
        ILocator step = visit.Page.GetByLabel("Step", new() { Exact = true });
        await Expect(visit.Page.Locator("output")).ToHaveTextAsync("step 7");
        await Expect(visit.Page.Locator(".answer")).ToContainTextAsync("more characters");
        // What is no sample is none.
        await step.PressAsync("ArrowLeft");
        await Expect(visit.Page.Locator("output")).ToHaveTextAsync("step 5");
        await Expect(visit.Page.Locator(".prompt")).ToHaveTextAsync(Html);
        await Expect(visit.Page.Locator(".answer")).ToContainTextAsync("red");
        await HarmlessAsync(visit);
        await visit.GoAsync($"/jobs/{job.Id}?tab=config");
        await Expect(visit.Page.Locator(".config")).ToContainTextAsync(Html);
        await HarmlessAsync(visit);
    }

    [Fact]
    public async Task Events_and_reasons_are_text()
    {
        JobView job = await Site.SubmitAsync("hostile-event", "data.train[0].path=\"/nowhere/<img src=x onerror=alert(1)>\\u202egnp.jsonl\"");
        await Site.UntilAsync(job.Id, JobStatus.Failed);
        await using Visit visit = await Browser.VisitAsync(Site);
        await Expect(visit.Page.Locator(".rows")).ToContainTextAsync("<img src=x onerror=alert(1)>\ufffdgnp.jsonl");
        await HarmlessAsync(visit);
        await visit.GoAsync($"/jobs/{job.Id}");
        await Expect(visit.Page.Locator(".events")).ToContainTextAsync("<img src=x onerror=alert(1)>\ufffdgnp.jsonl");
        await HarmlessAsync(visit);
        await visit.GoAsync($"/jobs/{job.Id}?tab=config");
        await Expect(visit.Page.Locator(".config")).ToContainTextAsync("<img src=x onerror=alert(1)>\ufffdgnp.jsonl");
        await HarmlessAsync(visit);
        await visit.GoAsync($"/jobs/{Uri.EscapeDataString(Html)}");
        await Expect(visit.Page.Locator("h1")).ToHaveTextAsync("No such job");
        await HarmlessAsync(visit);
    }

    [Fact]
    public async Task Odd_addresses_lead_to_a_page_that_says_so()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        foreach ((string path, string heading) in new[]
        {
            ("/?state=__proto__&order=constructor", "Jobs"), ("/jobs/%E0%A4%A", "No such job"), ($"/jobs/{Done}?tab=__proto__", Done.Value),
            ("/nope", "No such page"), ($"/JOBS/{Done}", "No such page"),
        })
        {
            await visit.Page.GotoAsync(path);
            await Expect(visit.Page.Locator("h1")).ToHaveTextAsync(heading);
        }
        Assert.Empty(visit.Problems);
    }

    private static async Task HarmlessAsync(Visit visit)
    {
        Assert.False(await visit.Page.EvaluateAsync<bool>("\"pwned\" in window"));
        Assert.DoesNotMatch("[\u001b\u202e]", await visit.Page.ContentAsync());
        Assert.Equal(0, await visit.Page.Locator("main :is(img, script, iframe, b, object)").CountAsync());
        Assert.Empty(visit.Problems);
    }
}
