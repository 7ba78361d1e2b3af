using System.Formats.Tar;
using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json;
using Microsoft.Playwright;
using Trainer.Contracts;
using Trainer.EndToEnd.Tests;
using Trainer.Worker.Reports;
using Xunit.Abstractions;
using static Microsoft.Playwright.Assertions;

namespace Dashboard.Tests;

/// <summary>The page of one job, of jobs that really train.</summary>
[Collection(SharedSite.Name)]
public sealed class JobPageTests(SiteFixture fixture, ITestOutputHelper output) : SharedSiteTests(fixture)
{
    [Fact]
    public async Task A_step_is_shown_within_a_second_of_its_end()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        JobView job = await Site.SubmitAsync("alpha", true, "live", "training.steps=60", "training.batch_tokens=4096", "evaluation.every=100000", "samples.every=100000", "checkpoint.every=30");
        await visit.GoAsync($"/jobs/{job.Id}");
        // When the page showed which step, as its own clock has it, which is this machine's.
        await visit.Page.EvaluateAsync("""
            () => {
              window.seen = {};
              const share = document.querySelector(".share");
              const note = () => { const step = /^step ([\d,]+)/.exec(share.textContent)?.[1].replace(",", ""); if (step) window.seen[step] ??= Date.now(); };
              new MutationObserver(note).observe(share, { childList: true, characterData: true, subtree: true });
            }
            """);
        await Expect(visit.Page.Locator("#connection")).ToHaveTextAsync("Live");
        await Site.Client().ResumeAsync(job.Id.Value);
        await Site.UntilAsync(job.Id, JobStatus.Succeeded);
        await Expect(visit.Page.Locator(".job-head .state")).ToHaveTextAsync("Succeeded");
        Dictionary<string, double> seen = (await visit.Page.EvaluateAsync<Dictionary<string, double>>("window.seen"))!;
        MetricsRecord[] steps = [.. StepLog.ReadMetrics(Site.Place.Files.Job(job.Id).Metrics)];
        double[] late = [.. steps.Where(step => seen.ContainsKey(step.Step.ToString(CultureInfo.InvariantCulture)))
            .Select(step => seen[step.Step.ToString(CultureInfo.InvariantCulture)] - step.Time.ToUnixTimeMilliseconds())];
        output.WriteLine($"shown after (ms): {string.Join(' ', late)}");
        Assert.True(late.Length > 20, $"{late.Length} of {steps.Length} steps were seen by themselves");
        Assert.True(late.Max() <= 1000, $"a step was shown {late.Max()} ms after its end");
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task A_page_that_shows_no_curves_follows_the_next_attempt_and_no_step_goes_back()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        JobView job = await Site.SubmitAsync("followed", "training.steps=40");
        JobFiles files = Site.Place.Files.Job(job.Id);
        await visit.GoAsync($"/jobs/{job.Id}?tab=logs");
        await visit.Page.EvaluateAsync("""
            () => {
              window.steps = [];
              const share = document.querySelector(".share"), attempt = () => [...document.querySelectorAll(".facts div")].find(each => each.textContent.startsWith("Attempt"))?.textContent;
              const note = () => { const step = /^step ([\d,]+)/.exec(share.textContent)?.[1]; if (step) window.steps.push(`${attempt()}:${step}`); };
              new MutationObserver(note).observe(share, { childList: true, characterData: true, subtree: true });
            }
            """);
        await Workplace.StepAsync(files, 12);
        LinuxProcesses.Signal(Assert.Single(Workplace.Ranks(files)), LinuxProcesses.Kill);
        await Expect(visit.Page.Locator(".facts")).ToContainTextAsync("Attempt2");
        await Site.UntilAsync(job.Id, JobStatus.Succeeded);
        await Expect(visit.Page.Locator(".job-head .state")).ToHaveTextAsync("Succeeded");
        await Expect(visit.Page.Locator(".share")).ToContainTextAsync("step 40");

        string[] steps = await visit.Page.EvaluateAsync<string[]>("window.steps");
        output.WriteLine(string.Join(' ', steps));
        foreach (IGrouping<string, string> attempt in steps.GroupBy(step => step.Split(':')[0]))
        {
            int[] shown = [.. attempt.Select(step => int.Parse(step.Split(':')[1], CultureInfo.InvariantCulture))];
            Assert.Equal(shown.Order(), shown);
        }
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task Attempts_are_marked_where_they_went_on()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        JobView job = await Site.SubmitAsync("recovers", "training.steps=40");
        JobFiles files = Site.Place.Files.Job(job.Id);
        await visit.GoAsync($"/jobs/{job.Id}");
        await Workplace.StepAsync(files, 12);
        LinuxProcesses.Signal(Assert.Single(Workplace.Ranks(files)), LinuxProcesses.Kill);
        await Expect(visit.Page.Locator(".events")).ToContainTextAsync("killed by SIGKILL");
        await Site.UntilAsync(job.Id, JobStatus.Succeeded);
        await Expect(visit.Page.Locator(".events")).ToContainTextAsync("attempt 2 starts on local");
        await Expect(visit.Page.Locator(".facts")).ToContainTextAsync("Attempt2");
        using JsonDocument series = await GetAsync($"v1/jobs/{job.Id}/series");
        JsonElement start = Assert.Single(series.RootElement.GetProperty("starts").EnumerateArray());
        Assert.Equal(1, start.GetProperty("step").GetInt64() % TinyJob.CheckpointEvery);
        Assert.Equal(40, series.RootElement.GetProperty("total").GetInt32());

        JobView view = await Site.Client().GetAsync(job.Id.Value);
        Assert.Equal([1, 2], view.Attempts.Select(attempt => attempt.Attempt));
        Assert.Contains("SIGKILL", view.Attempts[0].Ending, StringComparison.Ordinal);
        Assert.Equal(view.Attempts.Sum(attempt => (attempt.EndedAt!.Value - attempt.StartedAt).TotalSeconds), view.SlotSeconds, 3);
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task Marks_near_each_other_and_the_edge_do_not_overprint_their_names()
    {
        JobView job = await Site.SubmitAsync("alpha", paused: true, "restarts");
        // Attempts begin where the seconds begin anew.
        await File.WriteAllLinesAsync(Site.Place.Files.Job(job.Id).Metrics, Enumerable.Range(1, 100).Select(step => string.Create(CultureInfo.InvariantCulture,
            $$"""{"step":{{step}},"loss":{{9.0 / step}},"seconds":{{(step < 40 ? step : step < 94 ? step - 40 : step % 2)}},"time":"2026-01-01T00:00:{{step % 60:00}}Z"}""")));
        await using Visit visit = await Browser.VisitAsync(Site);
        await visit.Page.AddInitScriptAsync("""
            // From where to where each name goes in the newest drawing of each chart.
            window.labels = new Map();
            const { fillText, clearRect } = CanvasRenderingContext2D.prototype;
            CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
              if (text === "resumed") window.labels.get(this).push([x, x + this.measureText(text).width]);
              fillText.apply(this, arguments);
            };
            CanvasRenderingContext2D.prototype.clearRect = function () {
              window.labels.set(this, []);
              clearRect.apply(this, arguments);
            };
            """);
        await visit.GoAsync($"/jobs/{job.Id}");
        await Expect(visit.Page.Locator(".curves .note")).ToHaveTextAsync("100 steps");
        double[] edges = await visit.Page.EvaluateAsync<double[]>("[...window.labels.values()].find(all => all.length).sort((a, b) => a[0] - b[0]).flat()");
        Assert.True(edges.Length >= 4, "at least two of them have room");
        Assert.Equal(edges.Order(), edges);
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task Curves_have_words_and_tables_too()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        await visit.GoAsync($"/jobs/{Done}");
        foreach (string title in new[] { "Loss", "Learning rate", "Gradient norm", "Tokens per second" })
        {
            ILocator chart = visit.Page.GetByRole(AriaRole.Figure, new() { Name = title });
            await Expect(chart.Locator("canvas")).ToBeVisibleAsync();
            await Expect(chart.Locator("p.hidden")).ToContainTextAsync($"{title}, steps 1 to 30: from");
        }
        ILocator loss = visit.Page.GetByRole(AriaRole.Figure, new() { Name = "Loss" });
        await loss.GetByRole(AriaRole.Button, new() { Name = "Table" }).ClickAsync();
        await Expect(loss.GetByRole(AriaRole.Row)).ToHaveCountAsync(31);
        MetricsRecord last = StepLog.ReadMetrics(Site.Place.Files.Job(Done).Metrics)[^1];
        await Expect(loss.GetByRole(AriaRole.Row).Nth(1)).ToContainTextAsync(last.Loss.ToString("0.000", CultureInfo.InvariantCulture)[..4]);
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Time" }).ClickAsync();
        await Expect(visit.Page.GetByRole(AriaRole.Figure, new() { Name = "Gradient norm" }).Locator("canvas")).ToBeVisibleAsync();
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task The_log_is_followed_and_searched()
    {
        JobView job = await Site.SubmitAsync("logs", "training.steps=60");
        await Site.UntilAsync(job.Id, view => view.Step > 1);
        await using Visit visit = await Browser.VisitAsync(Site);
        await visit.GoAsync($"/jobs/{job.Id}?tab=logs");
        ILocator log = visit.Page.GetByRole(AriaRole.Log);
        await Site.UntilAsync(job.Id, JobStatus.Succeeded);
        await Expect(log).ToContainTextAsync("step 60/60");
        await visit.Page.GetByLabel("Search this log").FillAsync("STEP 17/60");
        await Expect(visit.Page.Locator(".line.current")).ToContainTextAsync("step 17/60");
        await Expect(visit.Page.Locator(".panel .found")).ToHaveTextAsync("1 hit");
        await visit.Page.GetByLabel("Stream").SelectOptionAsync("stderr");
        await Expect(log).Not.ToContainTextAsync("step 17/60");
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task Checkpoints_tell_their_state_and_are_downloaded_whole()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        await visit.GoAsync($"/jobs/{Done}?tab=checkpoints");
        ILocator rows = visit.Page.Locator("tbody tr");
        await Expect(rows.First).ToContainTextAsync("30");
        await Expect(visit.Page.Locator("tbody")).ToContainTextAsync("best");
        IDownload download = await visit.Page.RunAndWaitForDownloadAsync(() => visit.Page.GetByLabel("Download the checkpoint of step 30 as tar").ClickAsync());
        Assert.Equal($"{Done}-step-30.tar", download.SuggestedFilename);
        string folder = Site.Place.PathOf("downloaded");
        Directory.CreateDirectory(folder);
        await TarFile.ExtractToDirectoryAsync((await download.PathAsync())!, folder, overwriteFiles: false);
        using JsonDocument manifest = JsonDocument.Parse(await File.ReadAllBytesAsync(Path.Combine(folder, "step-00000030", "manifest.json")));
        JsonElement[] files = [.. manifest.RootElement.GetProperty("files").EnumerateArray()];
        Assert.NotEmpty(files);
        foreach (JsonElement file in files)
        {
            byte[] content = await File.ReadAllBytesAsync(Path.Combine(folder, file.GetProperty("path").GetString()!));
            Assert.Equal(file.GetProperty("sha256").GetString(), Convert.ToHexStringLower(SHA256.HashData(content)));
        }

        // One that somebody finds damaged says so, and is no longer offered.
        CheckpointEntry older = (await Site.Client().CheckpointsAsync(Done.Value)).Checkpoints.First(entry => entry.Status is CheckpointStatus.Committed && entry.Step < 30);
        await Site.Client().JudgeCheckpointAsync(Done.Value, older.Step, new CheckpointVerdict { Attempt = older.Attempt, Damage = "<b>bits</b> flipped" });
        await Expect(visit.Page.Locator("tbody")).ToContainTextAsync("quarantined<b>bits</b> flipped");
        await Expect(visit.Page.GetByLabel($"Download the checkpoint of step {older.Step} as tar")).ToHaveCountAsync(0);
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task Samples_are_told_by_step()
    {
        await using Visit visit = await Browser.VisitAsync(Site);
        await visit.GoAsync($"/jobs/{Done}?tab=samples");
        await Expect(visit.Page.Locator(".sample")).ToContainTextAsync("Say river 2 times.");
        await Expect(visit.Page.Locator("output")).ToHaveTextAsync("step 30");
        await visit.Page.GetByLabel("Step", new() { Exact = true }).PressAsync("ArrowLeft");
        await Expect(visit.Page.Locator("output")).ToHaveTextAsync("step 28");
        await visit.Page.GetByLabel("Prompt").SelectOptionAsync("1");
        await Expect(visit.Page.Locator(".sample")).ToHaveCountAsync(5);
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task Configurations_differ_where_they_differ_and_jobs_are_compared_in_one_chart()
    {
        JobView other = await Site.SubmitAsync("other", "optimizer.learning_rate=1e-3", "training.steps=20");
        await Site.UntilAsync(other.Id, JobStatus.Succeeded);
        await using Visit visit = await Browser.VisitAsync(Site);
        await visit.GoAsync($"/jobs/{Done}?tab=config");
        await Expect(visit.Page.Locator(".config")).ToContainTextAsync("optimizer.learning_rate");
        await visit.Page.GetByLabel("Compare with another job").FillAsync(other.Id.Value);
        await visit.Page.Keyboard.PressAsync("Enter");
        await Expect(visit.Page.Locator(".config tbody tr")).ToHaveTextAsync(["namedoneother", "training.steps3020", "optimizer.learning_rate0.0030.001"], new() { IgnoreCase = false });

        await visit.GoAsync($"/compare?jobs={Done}");
        await visit.Page.GetByLabel("Add a job").FillAsync(other.Id.Value);
        await visit.Page.Keyboard.PressAsync("Enter");
        await Expect(visit.Page.Locator("tbody tr")).ToHaveCountAsync(2);
        await Expect(visit.Page.GetByRole(AriaRole.Figure, new() { Name = "Loss" }).Locator("canvas")).ToBeVisibleAsync();
        Assert.Equal($"/compare?jobs={Done},{other.Id}", new Uri(visit.Page.Url).PathAndQuery);
        await visit.Page.GetByLabel("Metric").SelectOptionAsync("grad_norm");
        await Expect(visit.Page.GetByRole(AriaRole.Figure, new() { Name = "Gradient norm" }).Locator("p.hidden")).ToContainTextAsync("steps 1 to 30");
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = $"Remove {other.Id}" }).ClickAsync();
        await Expect(visit.Page.Locator("tbody tr")).ToHaveCountAsync(1);
        Assert.Empty(visit.Problems);
    }

    [Fact]
    public async Task A_hundred_thousand_points_stay_smooth_and_keep_their_extremes()
    {
        const int Points = 100_000, Spike = 54_321;
        JobView job = await Site.SubmitAsync("alpha", paused: true, "long");
        JobFiles files = Site.Place.Files.Job(job.Id);
        await using (StreamWriter metrics = File.CreateText(files.Metrics))
        {
            DateTimeOffset start = DateTimeOffset.UtcNow.AddDays(-2);
            for (int step = 1; step <= Points; step++)
            {
                double loss = step == Spike ? 99 : 2 + (8 * Math.Exp(-step / 20_000.0)) + (0.3 * Math.Sin(step));
                await metrics.WriteLineAsync(string.Create(CultureInfo.InvariantCulture,
                    $$"""{"step":{{step}},"loss":{{loss}},"learning_rate":{{0.001 * step / Points}},"grad_norm":{{1 + Math.Abs(Math.Cos(step))}},"tokens":{{step * 4096L}},"tokens_per_second":{{90_000 + (step % 1000)}},"seconds":{{step}},"time":"{{start.AddSeconds(step):O}}"}"""));
            }
        }
        using (JsonDocument series = await GetAsync($"v1/jobs/{job.Id}/series?points=800"))
        {
            JsonElement loss = series.RootElement.GetProperty("metrics").EnumerateArray().First(metric => metric.GetProperty("name").GetString() == "loss");
            Assert.InRange(series.RootElement.GetProperty("steps").GetArrayLength(), 700, 800);
            Assert.Equal((Points, Points), (series.RootElement.GetProperty("total").GetInt32(), series.RootElement.GetProperty("last").GetInt32()));
            Assert.Equal(99, loss.GetProperty("high").EnumerateArray().Max(value => value.GetDouble()));
        }
        using (JsonDocument near = await GetAsync($"v1/jobs/{job.Id}/series?points=800&from={Spike - 100}&to={Spike + 100}"))
        {
            Assert.Equal((1, 201), (near.RootElement.GetProperty("bucket").GetInt32(), near.RootElement.GetProperty("steps").GetArrayLength()));
        }

        await using Visit visit = await Browser.VisitAsync(Site);
        await visit.GoAsync($"/jobs/{job.Id}");
        ILocator loss_ = visit.Page.GetByRole(AriaRole.Figure, new() { Name = "Loss" });
        await Expect(visit.Page.Locator(".curves .note")).ToContainTextAsync("100,000 steps · a point is 125 steps");
        // Moving over the chart costs no more than a frame or two.
        LocatorBoundingBoxResult box = (await loss_.Locator(".u-over").BoundingBoxAsync())!;
        double worst = await visit.Page.EvaluateAsync<double>("""
            async ([x, y, width]) => {
              const over = document.querySelector(".chart .u-over"), took = [];
              for (let i = 0; i < 60; i++) {
                const start = performance.now();
                over.dispatchEvent(new MouseEvent("mousemove", { clientX: x + width * i / 60, clientY: y + 20, bubbles: true }));
                await new Promise(requestAnimationFrame);
                took.push(performance.now() - start);
              }
              return took.sort((a, b) => a - b)[30];
            }
            """, new object[] { (double)box.X, (double)box.Y, (double)box.Width });
        Assert.InRange(worst, 0, 50);
        // A stretch that is chosen is asked for in full.
        await visit.Page.Mouse.MoveAsync(box.X + (box.Width * 0.5f), box.Y + 50);
        await visit.Page.Mouse.DownAsync();
        await visit.Page.Mouse.MoveAsync(box.X + (box.Width * 0.505f), box.Y + 50, new() { Steps = 4 });
        await visit.Page.Mouse.UpAsync();
        await Expect(visit.Page.Locator(".curves .note")).Not.ToContainTextAsync("125 steps");
        await visit.Page.GetByRole(AriaRole.Button, new() { Name = "Whole run" }).ClickAsync();
        await Expect(visit.Page.Locator(".curves .note")).ToContainTextAsync("a point is 125 steps");
        Assert.Empty(visit.Problems);
    }

    private async Task<JsonDocument> GetAsync(string path)
    {
        using var http = new HttpClient();
        using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(Site.Address, path));
        request.Headers.Authorization = new System.Net.Http.Headers.AuthenticationHeaderValue("Bearer", "alpha");
        using HttpResponseMessage answer = await http.SendAsync(request);
        answer.EnsureSuccessStatusCode();
        return await JsonDocument.ParseAsync(await answer.Content.ReadAsStreamAsync());
    }
}
