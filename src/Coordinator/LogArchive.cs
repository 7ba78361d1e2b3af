using System.Collections.Concurrent;
using System.Globalization;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>
/// Copies what ranks write into the stores of their jobs, every few seconds and off every path that a rank, an agent or a reader waits
/// on, and brings it back where a file of this coordinator is gone or was another's. A stream lies in chunks of <see cref="ChunkSize"/>
/// bytes, <c>logs/JOB/attempt-2/rank-0.stdout/000003</c>; the last one, which is not full, has its length in its name, so that nothing
/// in the store is ever changed. <see cref="ILogsGrain"/> knows how far a stream is stored, and an empty file beside a rank's that nothing
/// more is to be stored: what a coordinator did not get to before it ended, the next one finds.
/// </summary>
public sealed partial class LogArchive(IGrainFactory grains, RankLogs logs, CoordinatorOptions options, TimeProvider time, ILogger<LogArchive> log)
    : BackgroundService
{
    internal const int ChunkSize = 1 << 20;

    /// <summary>Jobs that are stored at the same time.</summary>
    private const int AtOnce = 4;

    /// <summary>
    /// Rounds after which nothing more is expected of a rank of which nothing was heard; that a store which failed is left alone; and that
    /// a directory which is not on this machine is waited for.
    /// </summary>
    private const int Quiet = 3, Rest = 6, Wait = 60;

    private const int MostFetches = 4096;

    /// <summary>Of the last bytes that were stored, those by which a file is known to be the same still.</summary>
    private const int Remembered = 64;

    private static readonly TimeSpan s_fresh = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_storeTakes = TimeSpan.FromSeconds(15);
    private static readonly TimeSpan s_farewellTakes = TimeSpan.FromSeconds(3);

    private readonly ConcurrentDictionary<RankName, long> _heard = [];
    private readonly ConcurrentDictionary<RankName, byte> _ended = [];
    private readonly SemaphoreSlim _last = new(0);
    private readonly ConcurrentDictionary<(RankName Rank, LogStream Stream), Place> _places = [];
    private readonly ConcurrentDictionary<JobId, string?> _addresses = [];
    private readonly ConcurrentDictionary<string, LogStore> _stores = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, (long Since, string Problem)> _unreachable = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<(RankName Rank, LogStream Stream), (long Since, Task Done)> _fetches = [];

    /// <summary>This coordinator has what the rank writes, or is being sent it.</summary>
    /// <param name="rank">Which.</param>
    /// <param name="ended">The last that it wrote is stored soon: somebody may wait for it elsewhere.</param>
    public void Hear(RankName rank, bool ended = false)
    {
        if (options.OpenLogStore is null)
        {
            return;
        }
        if (!_heard.ContainsKey(rank))
        {
            logs.Reopen(rank);
        }
        _heard[rank] = time.GetTimestamp();
        if ((ended ? _ended.TryAdd(rank, 0) : _ended.ContainsKey(rank)) && _last.CurrentCount == 0)
        {
            _last.Release();
        }
    }

    /// <summary>Fetches what this coordinator lacks of a stream and its job's store has; those who ask at the same time wait for one fetch.</summary>
    /// <exception cref="ApiException">The store has it and cannot be read now.</exception>
    public async Task RestoreAsync(RankName rank, LogStream stream, CancellationToken cancellationToken)
    {
        // Ranks of this machine's own agent write metrics and samples into the files of the job: these are never behind.
        if (options.OpenLogStore is null || logs.Readable(rank, stream) != logs.Path(rank, stream))
        {
            return;
        }
        if (_fetches.Count > MostFetches)
        {
            _fetches.Clear();
        }
        long now = time.GetTimestamp();
        await _fetches.AddOrUpdate((rank, stream), _ => (now, FetchAsync(rank, stream)),
            (_, before) => before.Done.IsCompleted && time.GetElapsedTime(before.Since) > s_fresh ? (now, FetchAsync(rank, stream)) : before).Done.WaitAsync(cancellationToken);
    }

    /// <summary>Those of the newest attempt, which are the job's.</summary>
    /// <exception cref="ApiException">As for a single stream.</exception>
    public Task RestoreMetricsAsync(JobRecord? job, CancellationToken cancellationToken) =>
        job is { Attempt: > 0 } ? RestoreAsync(new RankName(job.Id, job.Attempt, 0), LogStream.Metrics, cancellationToken) : Task.CompletedTask;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (options.OpenLogStore is null)
        {
            return;
        }
        try
        {
            await Task.Yield();
            HearOfOthers();
            while (true)
            {
                if (await _last.WaitAsync(options.LogPeriod, stoppingToken))
                {
                    await Task.Delay(options.LogPeriod / 10, stoppingToken);
                }
                await StoreAsync(stoppingToken);
            }
        }
        catch (OperationCanceledException)
        {
            using var farewell = new CancellationTokenSource(s_farewellTakes);
            await StoreAsync(farewell.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    /// <summary>What coordinators before this one did not get to.</summary>
    private void HearOfOthers()
    {
        try
        {
            foreach (RankName rank in logs.NotStored())
            {
                _heard.TryAdd(rank, time.GetTimestamp());
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // An exception that leaves a background service would end the coordinator.
            LogNotFound(error.Message);
        }
    }

    private async Task StoreAsync(CancellationToken cancellationToken)
    {
        var together = new ParallelOptions { MaxDegreeOfParallelism = AtOnce, CancellationToken = cancellationToken };
        await Parallel.ForEachAsync(_heard.Keys.GroupBy(rank => rank.Job), together, async (ranks, token) => await StoreAsync(ranks.Key, [.. ranks], token));
        foreach (JobId job in _addresses.Keys.Except(_heard.Keys.Select(rank => rank.Job)))
        {
            _addresses.TryRemove(job, out _);
        }
    }

    private async Task StoreAsync(JobId job, RankName[] ranks, CancellationToken cancellationToken)
    {
        string? address = null;
        try
        {
            int newest = 0;
            if (!_addresses.TryGetValue(job, out address) || address is not null)
            {
                if (await grains.GetGrain<IJobGrain>(job.Value).Get() is not { } record)
                {
                    Array.ForEach(ranks, rank => _heard.TryRemove(rank, out _));
                    return;
                }
                (address, newest) = (AddressOf(record), record.Attempt);
            }
            if (address is not null && IsUnreachable(address))
            {
                return;
            }
            LogStore? store = address is null ? null : Open(address);
            bool waits = address is not null && store is null;
            foreach (RankName rank in ranks)
            {
                // What came before that moment is stored now; what comes later is heard of.
                long heard = _heard[rank];
                foreach (LogStream stream in store is null ? [] : StreamsOf(rank))
                {
                    await StoreAsync(store!, rank, stream, newest, cancellationToken);
                }
                if (time.GetElapsedTime(heard) > (waits ? Wait : Quiet) * options.LogPeriod && _heard.TryRemove(KeyValuePair.Create(rank, heard)))
                {
                    await LeaveAsync(store, rank, cancellationToken);
                    if (waits)
                    {
                        LogNotStored(job, address!, "there is no such directory here");
                    }
                    else
                    {
                        logs.Close(rank);
                    }
                }
            }
            if (store is not null && _unreachable.TryRemove(address!, out _))
            {
                LogStoredAgain(address!);
            }
        }
        catch (Exception error) when (error is not OperationCanceledException || !cancellationToken.IsCancellationRequested)
        {
            // What is not known of the job is asked again in the next round.
            if (address is not null)
            {
                Remark(job, address, error is OperationCanceledException ? "it does not answer" : error.Message);
            }
        }
    }

    /// <summary>Told once, until the store can be used again.</summary>
    private void Remark(JobId job, string address, string problem)
    {
        if (!_unreachable.ContainsKey(address))
        {
            LogNotStored(job, address, problem);
        }
        _unreachable[address] = (time.GetTimestamp(), problem);
    }

    private static LogStream[] StreamsOf(RankName rank) =>
        rank.Rank == 0 ? [LogStream.Stdout, LogStream.Stderr, LogStream.Stacks, LogStream.Metrics, LogStream.Samples] : [LogStream.Stdout, LogStream.Stderr, LogStream.Stacks];

    private async Task StoreAsync(LogStore store, RankName rank, LogStream stream, int newest, CancellationToken cancellationToken)
    {
        string path = logs.Readable(rank, stream);
        // The job's own file is the newest attempt's.
        if (FileGrowth.LengthOf(path) == 0 || (path != logs.Path(rank, stream) && rank.Attempt < newest))
        {
            return;
        }
        if (!_places.TryGetValue((rank, stream), out Place? place))
        {
            place = _places[(rank, stream)] = new Place(await LengthOfAsync(rank, stream), null, null);
        }
        await using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);
        // An attempt that begins cuts metrics and samples where it resumes.
        long from = stream is LogStream.Metrics or LogStream.Samples && !place.IsStillIn(file) ? 0 : place.Length;
        if (file.Length <= from)
        {
            return;
        }
        byte[] chunk = new byte[ChunkSize], last = [];
        long to = file.Position = from / ChunkSize * ChunkSize;
        int count;
        do
        {
            count = await file.ReadAtLeastAsync(chunk, ChunkSize, throwOnEndOfStream: false, cancellationToken);
            if (count > 0)
            {
                string name = NameOf(rank, stream, to, count);
                await WithinAsync(token => store.WriteAsync(name, chunk.AsMemory(0, count), token), cancellationToken);
                last = chunk[Math.Max(0, count - Remembered)..count];
                to += count;
            }
        }
        while (count == ChunkSize);
        bool mine = await grains.GetGrain<ILogsGrain>(rank.Job.Value).Extend(rank, stream, from, to) == to;
        string? now = LastChunkOf(rank, stream, to), before = LastChunkOf(rank, stream, place.Length);
        // Who asked how far it is stored, before this, may read the chunk that was the last one then: it goes with the next.
        if (place.Former is { } former && former != now)
        {
            await WithinAsync(token => store.DeleteAsync(former, token), cancellationToken);
        }
        if (mine)
        {
            _places[(rank, stream)] = new Place(to, last, before == now ? null : before);
        }
        else
        {
            _places.TryRemove((rank, stream), out _);
        }
    }

    /// <summary>Nothing more is expected of the rank.</summary>
    private async Task LeaveAsync(LogStore? store, RankName rank, CancellationToken cancellationToken)
    {
        _ended.TryRemove(rank, out _);
        foreach (LogStream stream in StreamsOf(rank))
        {
            if (_places.TryRemove((rank, stream), out Place? place) && place.Former is { } former && store is not null)
            {
                await WithinAsync(token => store.DeleteAsync(former, token), cancellationToken);
            }
        }
    }

    private async Task FetchAsync(RankName rank, LogStream stream)
    {
        string path = logs.Path(rank, stream);
        long stored = await LengthOfAsync(rank, stream);
        if (stored <= FileGrowth.LengthOf(path) || await grains.GetGrain<IJobGrain>(rank.Job.Value).Get() is not { } job || AddressOf(job) is not { } address)
        {
            return;
        }
        try
        {
            if (IsUnreachable(address) || Open(address) is not { } store)
            {
                throw new ApiException(StatusCodes.Status503ServiceUnavailable, Missing(address, _unreachable.TryGetValue(address, out (long, string Problem) known) ? known.Problem : "it is not on this machine"));
            }
            for (long at = FileGrowth.LengthOf(path) / ChunkSize * ChunkSize; at < stored; at += ChunkSize)
            {
                string name = NameOf(rank, stream, at, (int)Math.Min(ChunkSize, stored - at));
                byte[] chunk = [];
                await WithinAsync(async token => chunk = await store.ReadAsync(name, token), CancellationToken.None);
                logs.Append(rank, stream, at, chunk, rank.Attempt == job.Attempt);
            }
        }
        catch (Exception error) when (error is not ApiException)
        {
            string problem = error is OperationCanceledException ? "it does not answer" : error.Message;
            Remark(rank.Job, address, problem);
            throw new ApiException(StatusCodes.Status503ServiceUnavailable, Missing(address, problem));
        }

        string Missing(string store, string problem) =>
            $"{Spelling.Of(stream)} of attempt {rank.Attempt.ToString(CultureInfo.InvariantCulture)} is not on this machine but in {store}, which cannot be read now ({problem.TrimEnd('.')}); try again later";
    }

    private async Task<long> LengthOfAsync(RankName rank, LogStream stream) =>
        (await grains.GetGrain<ILogsGrain>(rank.Job.Value).Get(rank.Attempt)).FirstOrDefault(stored => stored.Rank == rank && stored.Stream == stream)?.Length ?? 0;

    /// <summary>A store that hangs holds up others no longer than that.</summary>
    private static async Task WithinAsync(Func<CancellationToken, Task> work, CancellationToken cancellationToken)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(s_storeTakes);
        await work(limit.Token).WaitAsync(limit.Token);
    }

    /// <summary>Null: the job names no store, and keeps its files in the home.</summary>
    private string? AddressOf(JobRecord job) => _addresses.GetOrAdd(job.Id, static (_, config) => JobConfigJson.Read(config).Checkpoint.Store, job.Spec.Config);

    /// <summary>Null: a directory that is not on this machine.</summary>
    private LogStore? Open(string address)
    {
        if (!_stores.TryGetValue(address, out LogStore? store) && (store = options.OpenLogStore!(address)) is not null)
        {
            if (_stores.Count > MostFetches)
            {
                _stores.Clear();
            }
            _stores[address] = store;
        }
        return store;
    }

    private bool IsUnreachable(string address) => _unreachable.TryGetValue(address, out (long Since, string) known) && time.GetElapsedTime(known.Since) < Rest * options.LogPeriod;

    /// <summary>Null: it is full.</summary>
    private static string? LastChunkOf(RankName rank, LogStream stream, long length) =>
        length % ChunkSize == 0 ? null : NameOf(rank, stream, length / ChunkSize * ChunkSize, (int)(length % ChunkSize));

    private static string NameOf(RankName rank, LogStream stream, long at, int count)
    {
        string chunk = string.Create(CultureInfo.InvariantCulture, $"logs/{rank.Job}/attempt-{rank.Attempt}/rank-{rank.Rank}.{Spelling.Of(stream)}/{at / ChunkSize:D6}");
        return count == ChunkSize ? chunk : string.Create(CultureInfo.InvariantCulture, $"{chunk}-{count}");
    }

    /// <param name="Length">How far a stream is stored.</param>
    /// <param name="Last">The last bytes before that; null: not known.</param>
    /// <param name="Former">The name of the chunk that was the last one, and is in a longer one now.</param>
    private sealed record Place(long Length, byte[]? Last, string? Former)
    {
        public bool IsStillIn(FileStream file)
        {
            if (Last is null || file.Length < Length)
            {
                return false;
            }
            byte[] there = new byte[Last.Length];
            file.Position = Length - Last.Length;
            return file.ReadAtLeast(there, there.Length, throwOnEndOfStream: false) == there.Length && there.AsSpan().SequenceEqual(Last);
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Job}: what its ranks write is on this machine only until {Store} can be used: {Problem}")]
    private partial void LogNotStored(JobId job, string store, string problem);

    [LoggerMessage(Level = LogLevel.Warning, Message = "what ranks wrote before may stay on this machine only: {Problem}")]
    private partial void LogNotFound(string problem);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Store} takes what ranks write again")]
    private partial void LogStoredAgain(string store);
}
