using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Text;
using Trainer.Contracts;
using Trainer.Coordinator;

namespace Coordinator.Tests;

/// <summary>What ranks write is in their job's store soon after, and comes back from there when the coordinator's files are gone.</summary>
public sealed class LogArchiveTests : IAsyncLifetime
{
    private const string Address = "azblob://checkpoints/demo";

    private readonly ConcurrentDictionary<string, byte[]> _store = new(StringComparer.Ordinal);
    private volatile bool _away;
    private OpenCoordinator? _open;
    private CoordinatorClient? _alpha, _worker;
    private NodeReport _report = new() { Node = "n1", Slots = 1 };

    public async Task InitializeAsync()
    {
        _open = await OpenCoordinator.StartAsync(new CoordinatorOptions
        {
            Poll = TimeSpan.FromMilliseconds(50), LogPeriod = TimeSpan.FromMilliseconds(100), OpenLogStore = Open,
        });
        (_alpha, _worker) = (_open.Client("a"), _open.Client("w"));
    }

    public async Task DisposeAsync()
    {
        _alpha!.Dispose();
        _worker!.Dispose();
        await _open!.DisposeAsync();
    }

    [Fact]
    public async Task Streams_lie_in_the_store_in_chunks_and_come_back()
    {
        RankName rank = await StartAsync($"checkpoint.store={Address}");
        byte[] log = Lines(2 * LogArchive.ChunkSize + 12345);
        byte[] metrics = "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2.25}\n"u8.ToArray();
        await SendAsync(rank, LogStream.Stdout, log, 0, 1000);
        await UntilStoredAsync(rank, LogStream.Stdout, 1000);
        await SendAsync(rank, LogStream.Stdout, log, 1000, log.Length);
        await SendAsync(rank, LogStream.Metrics, metrics, 0, metrics.Length);
        await UntilStoredAsync(rank, LogStream.Stdout, log.Length);
        await UntilStoredAsync(rank, LogStream.Metrics, metrics.Length);

        string folder = $"logs/{rank.Job}/attempt-1/";
        Assert.Equal(log[..LogArchive.ChunkSize], _store[$"{folder}rank-0.stdout/000000"]);
        Assert.Equal(log[(2 * LogArchive.ChunkSize)..], _store[$"{folder}rank-0.stdout/000002-12345"]);
        Assert.Equal(metrics, _store[$"{folder}rank-0.metrics/000000-{metrics.Length}"]);

        Directory.Delete(_open!.Home.Home.Job(rank.Job).Directory, recursive: true);
        Assert.Equal(log, await ReadAsync(rank, LogStream.Stdout));
        using HttpResponseMessage series = await _open.SendAsync("a", HttpMethod.Get, $"/v1/jobs/{rank.Job}/series");
        Assert.Contains("\"last\":2", (await series.Content.ReadAsStringAsync()).Replace(" ", "", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.Equal(metrics, await ReadAsync(rank, LogStream.Metrics));
        Assert.Empty(await ReadAsync(rank, LogStream.Stderr));

        // The agent goes on where the log is now; chunks that longer ones contain go.
        await SendAsync(rank, LogStream.Stdout, log, log.Length - 5, log.Length);
        foreach (int more in new[] { 100, 200, 300 })
        {
            byte[] longer = [.. log, .. Lines(more)];
            await SendAsync(rank, LogStream.Stdout, longer, log.Length, longer.Length);
            await UntilStoredAsync(rank, LogStream.Stdout, longer.Length);
            log = longer;
        }
        Assert.Equal(log, await ReadAsync(rank, LogStream.Stdout));
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        while (_store.Keys.Count(name => name.StartsWith($"{folder}rank-0.stdout/000002", StringComparison.Ordinal)) > 1)
        {
            await Task.Delay(20, limit.Token);
        }
    }

    [Fact]
    public async Task A_store_that_is_away_delays_nobody_and_has_everything_when_it_is_back()
    {
        _away = true;
        RankName rank = await StartAsync($"checkpoint.store={Address}");
        byte[] log = Lines(5000);
        await SendAsync(rank, LogStream.Stderr, log, 0, log.Length);
        await Task.Delay(500);
        Assert.Empty(_store);
        Assert.Equal(log, await ReadAsync(rank, LogStream.Stderr));
        _away = false;
        await UntilStoredAsync(rank, LogStream.Stderr, log.Length);
        Assert.Equal(log, _store[$"logs/{rank.Job}/attempt-1/rank-0.stderr/000000-5000"]);
    }

    [Fact]
    public async Task Who_reads_what_only_the_store_has_waits_for_it_and_learns_when_it_is_away()
    {
        RankName rank = await StartAsync($"checkpoint.store={Address}");
        byte[] log = Lines(5000);
        await SendAsync(rank, LogStream.Stdout, log, 0, log.Length);
        await UntilStoredAsync(rank, LogStream.Stdout, log.Length);
        Directory.Delete(_open!.Home.Home.Job(rank.Job).Directory, recursive: true);
        _away = true;
        CoordinatorException refusal = await Assert.ThrowsAsync<CoordinatorException>(() => _alpha!.ReadLogAsync(rank, LogStream.Stdout, 0));
        Assert.Equal(HttpStatusCode.ServiceUnavailable, refusal.Status);
        Assert.Contains($"stdout of attempt 1 is not on this machine but in {Address}", refusal.Message, StringComparison.Ordinal);

        _away = false;
        await Task.Delay(1500);
        byte[][] read = await Task.WhenAll(Enumerable.Range(0, 5).Select(_ => ReadAsync(rank, LogStream.Stdout)));
        Assert.All(read, bytes => Assert.Equal(log, bytes));
    }

    [Fact]
    public async Task What_a_coordinator_did_not_store_before_it_ended_the_next_one_stores()
    {
        using var home = new TestHome();
        var options = new CoordinatorOptions { Poll = TimeSpan.FromMilliseconds(50), LogPeriod = TimeSpan.FromMilliseconds(100), OpenLogStore = Open };
        _away = true;
        RankName rank;
        byte[] log = Lines(3000);
        await using (await CoordinatorHost.StartAsync(home.Home, options))
        {
            using var client = new CoordinatorClient(home.Home.Socket);
            rank = new RankName((await client.SubmitAsync(new SubmitRequest { Config = JobConfigFile.Load(home.JobFile, [$"checkpoint.store={Address}"]) })).Id, 1, 0);
            var report = new NodeReport { Node = "n1", Slots = 1 };
            while ((await client.ReportAsync(report = report with { Sequence = report.Sequence + 1 })).Ranks.IsEmpty)
            {
                await Task.Delay(20);
            }
            Assert.Equal(log.Length, await client.SendLogAsync(rank, LogStream.Stdout, 0, log));
        }
        Assert.Empty(_store);
        _away = false;
        await using (await CoordinatorHost.StartAsync(home.Home, options))
        {
            using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(20));
            AttemptFiles own = home.Home.Job(rank.Job).Attempt(1);
            while (!File.Exists(own.StoredOf(0)))
            {
                await Task.Delay(20, limit.Token);
            }
        }
        Assert.Equal(log, _store[$"logs/{rank.Job}/attempt-1/rank-0.stdout/000000-3000"]);
    }

    [Fact]
    public async Task Metrics_that_a_resuming_attempt_cut_are_stored_as_they_are_now()
    {
        RankName rank = await StartAsync($"checkpoint.store={Address}");
        string file = _open!.Home.Home.Job(rank.Job).Metrics;
        await File.WriteAllTextAsync(file, "{\"step\":1}\n{\"step\":2}\n");
        await HearAsync(rank, LogStream.Metrics, 22);
        await File.WriteAllTextAsync(file, "{\"step\":1}\n{\"step\":2,\"again\":true}\n");
        await HearAsync(rank, LogStream.Metrics, 35);
        Assert.Equal("{\"step\":1}\n{\"step\":2,\"again\":true}\n", Encoding.UTF8.GetString(_store[$"logs/{rank.Job}/attempt-1/rank-0.metrics/000000-35"]));
    }

    [Fact]
    public async Task A_job_that_names_no_store_keeps_its_logs_in_the_home()
    {
        RankName rank = await StartAsync();
        await SendAsync(rank, LogStream.Stdout, Lines(100), 0, 100);
        await Task.Delay(500);
        Assert.Empty(_store);
        Assert.Empty(await Logs(rank).Get(1));
    }

    [Fact]
    public async Task Of_two_coordinators_that_store_one_stream_the_later_one_learns_how_far_the_other_is()
    {
        var rank = new RankName(new JobId("demo-aaaa"), 1, 0);
        Assert.Equal(10, await Logs(rank).Extend(rank, LogStream.Stdout, 0, 10));
        Assert.Equal(30, await Logs(rank).Extend(rank, LogStream.Stdout, 10, 30));
        Assert.Equal(30, await Logs(rank).Extend(rank, LogStream.Stdout, 10, 20));
        Assert.Equal(0, await Logs(rank).Extend(rank, LogStream.Stderr, 5, 20));
        Assert.Equal(5, await Logs(rank).Extend(rank with { Attempt = 2 }, LogStream.Stdout, 0, 5));
        Assert.Equal((LogStream.Stdout, 30), (Assert.Single(await Logs(rank).Get(1)) is var stored ? (stored.Stream, stored.Length) : default));
        Assert.Equal(7, await Logs(rank).Extend(rank, LogStream.Stdout, 0, 7));
    }

    private LogStore? Open(string address)
    {
        Assert.Equal(Address, address);
        return new LogStore(
            (path, bytes, _) =>
            {
                ObjectDisposedException.ThrowIf(_away, this);
                _store[path] = bytes.ToArray();
                return Task.CompletedTask;
            },
            (path, _) => _away ? Task.FromException<byte[]>(new IOException("no route")) : Task.FromResult(_store[path]),
            (path, _) => Task.FromResult(_store.TryRemove(path, out byte[]? _)));
    }

    /// <summary>A job in its first attempt, on a node of which this test is the agent.</summary>
    private async Task<RankName> StartAsync(params string[] overrides)
    {
        JobView job = await _alpha!.SubmitAsync(new SubmitRequest { Config = JobConfigFile.Load(_open!.Home.JobFile, overrides) });
        var rank = new RankName(job.Id, 1, 0);
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        while (!(await ReportAsync()).Ranks.Any(ordered => ordered.Name == rank))
        {
            await Task.Delay(20, limit.Token);
        }
        _report = _report with { Ranks = [new RankState { Name = rank, Alive = true, Process = new ProcessIdentity { Pid = 1, StartTime = 1 } }] };
        return rank;
    }

    private Task<NodeOrders> ReportAsync() => _worker!.ReportAsync(_report = _report with { Sequence = _report.Sequence + 1 });

    private async Task SendAsync(RankName rank, LogStream stream, byte[] bytes, int from, int to)
    {
        for (int at = from; at < to;)
        {
            at = (int)await _worker!.SendLogAsync(rank, stream, at, bytes.AsMemory(at, Math.Min(LogLength.MaxPiece, to - at)));
        }
    }

    private async Task<byte[]> ReadAsync(RankName rank, LogStream stream)
    {
        var all = new List<byte>();
        while (await _alpha!.ReadLogAsync(rank, stream, all.Count) is { Length: > 0 } piece)
        {
            all.AddRange(piece);
        }
        return [.. all];
    }

    private async Task UntilStoredAsync(RankName rank, LogStream stream, long length)
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        while ((await Logs(rank).Get(rank.Attempt)).FirstOrDefault(stored => stored.Stream == stream)?.Length != length)
        {
            await Task.Delay(20, limit.Token);
        }
    }

    /// <summary>The agent of the coordinator's machine sends no bytes, only reports.</summary>
    private async Task HearAsync(RankName rank, LogStream stream, long length)
    {
        await ReportAsync();
        await UntilStoredAsync(rank, stream, length);
    }

    private ILogsGrain Logs(RankName rank) => _open!.Grains.GetGrain<ILogsGrain>(rank.Job.Value);

    private static byte[] Lines(int count)
    {
        var text = new StringBuilder();
        for (int i = 0; text.Length < count; i++)
        {
            text.Append(CultureInfo.InvariantCulture, $"line {i} of a log\n");
        }
        return Encoding.UTF8.GetBytes(text.ToString(0, count));
    }
}
