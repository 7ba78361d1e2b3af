using System.Globalization;
using System.Net.Http.Headers;
using Trainer.Contracts;
using Xunit.Abstractions;

namespace Dashboard.Tests;

/// <summary>What many open pages cost the coordinator.</summary>
[Collection(SharedSite.Name)]
public sealed class LoadTests(SiteFixture fixture, ITestOutputHelper output) : SharedSiteTests(fixture)
{
    private const int Pages = 200;
    private const double TicksPerSecond = 100;

    private static readonly TimeSpan s_measured = TimeSpan.FromSeconds(6);

    /// <summary>Each page follows a job that trains, asks for its ranks every two seconds, and drew its curves once.</summary>
    [Fact]
    public async Task Two_hundred_open_pages_cost_half_a_core_and_200_MiB_at_most()
    {
        JobView job = await Site.SubmitAsync("watched", "training.steps=100000", "evaluation.every=100000", "samples.every=100000");
        await Site.UntilAsync(job.Id, view => view.Step > 5);
        using var http = new HttpClient(new SocketsHttpHandler { MaxConnectionsPerServer = 1000 }) { BaseAddress = Site.Address, Timeout = TimeSpan.FromMinutes(5) };
        http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", "alpha");
        http.DefaultRequestHeaders.AcceptEncoding.ParseAdd("gzip");
        (double idle, long memory) = await MeasureAsync();

        using var over = new CancellationTokenSource();
        int[] heard = new int[Pages];
        Task[] pages = [.. Enumerable.Range(0, Pages).Select(page => Task.Run(() => OpenAsync(page)))];
        await WaitAsync(() => heard.All(count => count > 2));
        (double busy, long more) = await MeasureAsync();
        await over.CancelAsync();
        await Task.WhenAll(pages);
        await Site.Client().CancelAsync(job.Id.Value);
        await Site.UntilAsync(job.Id, JobStatus.Cancelled);

        output.WriteLine(FormattableString.Invariant($"{Pages} pages: {busy - idle:0.00} cores ({idle:0.00} without), {(more - memory) >> 20} MiB more than {memory >> 20} MiB"));
        Assert.InRange(busy - idle, -1, 0.5);
        Assert.InRange((more - memory) >> 20, -1000, 200);

        async Task OpenAsync(int page)
        {
            try
            {
                using HttpResponseMessage series = await http.GetAsync(new Uri($"v1/jobs/{job.Id}/series?points=800", UriKind.Relative), over.Token);
                series.EnsureSuccessStatusCode();
                Task polling = PollAsync();
                using HttpResponseMessage stream = await http.GetAsync(new Uri($"v1/jobs/{job.Id}/stream?after=0&step=0", UriKind.Relative), HttpCompletionOption.ResponseHeadersRead, over.Token);
                using var reader = new StreamReader(await stream.Content.ReadAsStreamAsync(over.Token));
                while (await reader.ReadLineAsync(over.Token) is { } line)
                {
                    heard[page] += line.StartsWith("event: metrics", StringComparison.Ordinal) ? 1 : 0;
                }
                await polling;
            }
            catch (OperationCanceledException)
            {
                // The page is closed.
            }
        }

        async Task PollAsync()
        {
            while (true)
            {
                await Task.Delay(2000, over.Token);
                using HttpResponseMessage ranks = await http.GetAsync(new Uri($"v1/jobs/{job.Id}/ranks", UriKind.Relative), over.Token);
                ranks.EnsureSuccessStatusCode();
            }
        }
    }

    private static async Task WaitAsync(Func<bool> holds)
    {
        for (int i = 0; !holds(); i++)
        {
            Assert.True(i < 600, "not every page heard of steps");
            await Task.Delay(100);
        }
    }

    private async Task<(double Cores, long Memory)> MeasureAsync()
    {
        double before = Ticks();
        await Task.Delay(s_measured);
        return ((Ticks() - before) / TicksPerSecond / s_measured.TotalSeconds, Memory());
    }

    private double Ticks()
    {
        string stat = File.ReadAllText($"/proc/{Site.Pid}/stat");
        string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return double.Parse(fields[11], CultureInfo.InvariantCulture) + double.Parse(fields[12], CultureInfo.InvariantCulture);
    }

    private long Memory() => long.Parse(File.ReadLines($"/proc/{Site.Pid}/status").First(line => line.StartsWith("VmRSS:", StringComparison.Ordinal))
        .Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) << 10;
}
