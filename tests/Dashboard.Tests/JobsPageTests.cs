using System.Diagnostics;
using Microsoft.Playwright;
using Trainer.Contracts;
using Trainer.EndToEnd.Tests;
using Xunit.Abstractions;
using static Microsoft.Playwright.Assertions;

namespace Dashboard.Tests;

/// <summary>The list of jobs: what it shows, what may be done in it, and that thousands of jobs change nothing.</summary>
[Collection(SharedSite.Name)]
public sealed class JobsPageTests(SiteFixture fixture, ITestOutputHelper output) : SharedSiteTests(fixture)
{
    private const int Many = 5000;

    [Fact]
    public async Task The_first_paint_takes_a_second_at_most_and_little_is_transferred()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        ICDPSession network = await visit.Context.NewCDPSessionAsync(visit.Page);
        double transferred = 0;
        await network.SendAsync("Network.enable");
        await network.SendAsync("Network.setCacheDisabled", new Dictionary<string, object> { ["cacheDisabled"] = true });
        network.Event("Network.loadingFinished").OnEvent += (_, told) => transferred += told!.Value.GetProperty("encodedDataLength").GetDouble();
        network.Event("Network.dataReceived").OnEvent += (_, told) => transferred += told!.Value.GetProperty("encodedDataLength").GetDouble();

        var paints = new List<double>();
        for (int i = 0; i < 3; i++)
        {
            transferred = 0;
            await visit.GoAsync($"/jobs/{Done}");
            paints.Add(await visit.Page.EvaluateAsync<double>("performance.getEntriesByName('first-contentful-paint')[0].startTime"));
        }

        output.WriteLine(FormattableString.Invariant($"first paint after {string.Join(", ", paints)} ms, {transferred / 1024:0} KiB"));
        Assert.InRange(paints.Max(), 1, 1000);
        // Some of it is counted twice, as it comes and when it is there.
        Assert.InRange(transferred, 10_000, 300 * 1024);
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task Everything_that_can_be_done_to_a_job_is_asked_first_and_then_done()
    {
        await using Visit visit = await Browser.VisitAsync(Site, "admin");
        IPage page = visit.Page;
        // It runs long enough to be paused while it does.
        JobView running = await Site.SubmitAsync("acts", "training.steps=100000", "evaluation.every=100000", "samples.every=100000");
        JobView waiting = await Site.SubmitAsync("waits");
        await page.Locator($"[data-state=running]").First.WaitForAsync();
        await Expect(Row(waiting)).ToContainTextAsync("Queued");
        await Expect(Row(waiting)).ToContainTextAsync("waiting for 1 slot in pool default");

        await visit.DoAsync(waiting.Id.Value, "Priority …", "Keep as it is");
        await visit.DoAsync(waiting.Id.Value, "Cancel …", "Keep as it is");
        Assert.Equal((JobStatus.Queued, 0), ((await Site.Client().GetAsync(waiting.Id.Value)).Status, (await Site.Client().GetAsync(waiting.Id.Value)).Priority));

        await page.GetByRole(AriaRole.Button, new() { Name = $"Actions for {waiting.Id}" }).ClickAsync();
        await page.GetByRole(AriaRole.Menuitem, new() { Name = "Priority …" }).ClickAsync();
        await page.GetByLabel("Priority, −1000 to 1000").FillAsync("7");
        await page.GetByRole(AriaRole.Button, new() { Name = "Set priority" }).ClickAsync();
        await Expect(Row(waiting).Locator(".c-priority")).ToHaveTextAsync("7");

        await visit.DoAsync(waiting.Id.Value, "Cancel …", "Cancel job");
        await Expect(Row(waiting)).ToContainTextAsync("Cancelled");

        await Site.UntilAsync(running.Id, view => view.Step >= 2);
        await visit.DoAsync(running.Id.Value, "Pause", "Pause");
        await Expect(Row(running)).ToContainTextAsync("Paused");
        Assert.Equal(JobStatus.Paused, (await Site.UntilAsync(running.Id, JobStatus.Paused)).Status);
        await visit.DoAsync(running.Id.Value, "Resume", "Resume");
        await Expect(Row(running)).ToContainTextAsync("Running");
        Assert.Equal(2, (await Site.UntilAsync(running.Id, JobStatus.Running)).Attempt);

        // One whose rank takes its time to stop can be told to go on all the same.
        JobFiles files = Site.Place.Files.Job(running.Id);
        await Workplace.UntilAsync(() => Workplace.Ranks(files).Length == 1, "the rank");
        int rank = Workplace.Ranks(files)[0];
        LinuxProcesses.Signal(rank, LinuxProcesses.Stop);
        await visit.DoAsync(running.Id.Value, "Pause", "Pause");
        await Expect(Row(running)).ToContainTextAsync("pauses after a last checkpoint");
        await visit.DoAsync(running.Id.Value, "Resume", "Resume");
        await Expect(Row(running)).ToContainTextAsync("stops after a last checkpoint, then goes on");
        LinuxProcesses.Signal(rank, LinuxProcesses.Continue);
        Assert.Equal(JobStatus.Running, (await Site.UntilAsync(running.Id, view => view is { Attempt: 3, Status: JobStatus.Running })).Status);

        // Or to end: while it stops, the last wish holds.
        await Workplace.UntilAsync(() => Workplace.Ranks(files).Length == 1 && Workplace.Ranks(files)[0] != rank, "the next rank");
        rank = Workplace.Ranks(files)[0];
        LinuxProcesses.Signal(rank, LinuxProcesses.Stop);
        await visit.DoAsync(running.Id.Value, "Pause", "Pause");
        await Expect(Row(running)).ToContainTextAsync("pauses after a last checkpoint");
        await visit.DoAsync(running.Id.Value, "Cancel …", "Cancel job");
        await Expect(Row(running)).ToContainTextAsync("ends after a last checkpoint");
        LinuxProcesses.Signal(rank, LinuxProcesses.Continue);
        await Expect(Row(running)).ToContainTextAsync("Cancelled");

        // A job whose data is gone fails for good, and is tried again when it is back.
        string data = Site.Place.PathOf("train.jsonl"), away = Site.Place.PathOf("away.jsonl");
        File.Move(data, away);
        JobView failing = await Site.SubmitAsync("fails");
        await Expect(Row(failing)).ToContainTextAsync("Failed");
        File.Move(away, data);
        await visit.DoAsync(failing.Id.Value, "Retry", "Retry");
        await Expect(Row(failing)).ToContainTextAsync("Succeeded", new() { Timeout = 60_000 });
        Assert.Empty(visit.Problems);

        ILocator Row(JobView job) => page.Locator(".rows > .row", new() { Has = page.GetByRole(AriaRole.Link, new() { Name = job.Id.Value, Exact = true }) });
    }

    [Fact]
    public async Task Several_jobs_are_cancelled_with_one_question()
    {
        JobView[] jobs = [await Site.SubmitAsync("alpha", true, "several"), await Site.SubmitAsync("alpha", true, "several")];
        await using Visit visit = await Browser.VisitAsync(Site);
        foreach (JobView job in jobs)
        {
            await visit.Page.GetByLabel($"Choose {job.Id}").CheckAsync();
        }
        ILocator chosen = visit.Page.GetByRole(AriaRole.Group, new() { Name = "Chosen jobs" });
        await Expect(chosen).ToContainTextAsync("2 chosen");
        await chosen.GetByRole(AriaRole.Button, new() { Name = "Cancel" }).ClickAsync();
        await Expect(visit.Page.GetByRole(AriaRole.Button, new() { Name = "Keep as it is" })).ToBeFocusedAsync();
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Cancel 2 jobs" }).ClickAsync();
        foreach (JobView job in jobs)
        {
            await Site.UntilAsync(job.Id, JobStatus.Cancelled);
        }
    }

    [Fact]
    public async Task A_new_job_appears_by_itself_and_filters_and_search_find_it()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        JobView job = await Site.SubmitAsync("alpha", paused: true, "appears");
        var watch = Stopwatch.StartNew();
        await Expect(visit.Page.GetByRole(AriaRole.Link, new() { Name = job.Id.Value })).ToBeVisibleAsync();
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(3), $"{watch.Elapsed}");

        await visit.Page.Keyboard.PressAsync("/");
        await visit.Page.Keyboard.TypeAsync("appears");
        await Expect(visit.Page.Locator(".rows > .row")).ToHaveCountAsync(1);
        await visit.Page.GetByRole(AriaRole.Button, new() { NameString = "Failed" }).ClickAsync();
        await Expect(visit.Page.GetByRole(AriaRole.Heading, new() { Name = "No job fits" })).ToBeVisibleAsync();
        // The filters are part of the address.
        await visit.Page.ReloadAsync();
        await Expect(visit.Page.GetByRole(AriaRole.Heading, new() { Name = "No job fits" })).ToBeVisibleAsync();
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Show all jobs" }).ClickAsync();
        await Expect(visit.Page.GetByRole(AriaRole.Link, new() { Name = job.Id.Value })).ToBeVisibleAsync();
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task Five_thousand_jobs_are_listed_searched_and_scrolled_without_lag()
    {
        await using Site big = await Site.StartAsync();
        await Parallel.ForEachAsync(Enumerable.Range(0, Many), new ParallelOptions { MaxDegreeOfParallelism = 64 }, async (i, _) =>
            await big.SubmitAsync("alpha", paused: i % 50 != 0, $"job-{i % 97}"));
        await using Visit visit = await Browser.VisitAsync(big);
        IPage page = visit.Page;
        await Expect(page.Locator(".page-head .found")).ToHaveTextAsync("5,000 jobs");
        // Only what is seen is in the document.
        Assert.InRange(await page.Locator(".rows > .row").CountAsync(), 10, 40);
        Assert.Equal("5001", await page.GetByRole(AriaRole.Table).GetAttributeAsync("aria-rowcount"));

        // While everything is read by a page that has just come.
        var watch = Stopwatch.StartNew();
        await page.ReloadAsync();
        await Expect(page.Locator(".page-head .found")).ToHaveTextAsync("5,000 jobs");
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(4), $"all jobs were there after {watch.Elapsed}");

        // What the page's thread works for a letter of the search, and for a screen of scrolling.
        ICDPSession processor = await visit.Context.NewCDPSessionAsync(page);
        await processor.SendAsync("Performance.enable", new Dictionary<string, object> { ["timeDomain"] = "threadTicks" });
        double typing = await WorkAsync(processor, () => page.EvaluateAsync("""
            async () => {
              const search = document.getElementById("search");
              for (let i = 0; i < 20; i++) {
                search.value = i === 19 ? "" : `job-${i}`;
                search.dispatchEvent(new Event("input", { bubbles: true }));
                await new Promise(requestAnimationFrame);
              }
            }
            """)) / 20;
        double scrolling = await WorkAsync(processor, () => page.EvaluateAsync("""
            async () => {
              for (let i = 0; i < 60; i++) {
                scrollTo(0, i * 4000);
                await new Promise(requestAnimationFrame);
                await new Promise(requestAnimationFrame);
              }
            }
            """)) / 60;
        output.WriteLine(FormattableString.Invariant($"{Many} jobs: {typing:0.0} ms a letter of the search, {scrolling:0.0} ms a screen of scrolling"));
        Assert.InRange(typing, 1, 50);
        // Each is a jump to rows that were not there: two frames, on a processor that may have other work.
        Assert.InRange(scrolling, 1, 33);
        await page.EvaluateAsync("scrollTo(0, document.body.scrollHeight)");
        await Expect(page.Locator(".rows > .row[aria-rowindex='5001']")).ToBeVisibleAsync();
        Assert.Empty(visit.Problems);
    }

    /// <summary>Milliseconds of its main thread, whatever else the machine does.</summary>
    private static async Task<double> WorkAsync(ICDPSession processor, Func<Task> action)
    {
        double before = await BusyAsync();
        await action();
        return (await BusyAsync() - before) * 1000;

        async Task<double> BusyAsync() => (await processor.SendAsync("Performance.getMetrics"))!.Value.GetProperty("metrics").EnumerateArray()
            .First(metric => metric.GetProperty("name").GetString() == "TaskDuration").GetProperty("value").GetDouble();
    }
}
