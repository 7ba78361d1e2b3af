using System.Collections.Concurrent;
using System.Globalization;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>
/// Copies what ranks write into the stores of their jobs, every few seconds and off every path that a rank, an agent or a reader waits
/// on, and brings it back where a file of this coordinator is gone or was another's. A stream lies in chunks of <see cref="ChunkSize"/>
/// bytes, <c>logs/JOB/attempt-2/rank-0.stdout/000003</c>; the last one, which is not full, has its length in its name, so that nothing
/// in the store is ever changed. <see cref="ILogsGrain"/> knows how far a stream is stored.
/// </summary>
public sealed partial class LogArchive(IGrainFactory grains, RankLogs logs, CoordinatorOptions options, TimeProvider time, ILogger<LogArchive> log)
    : BackgroundService
{
    internal const int ChunkSize = 1 << 20;

    /// <summary>Jobs that are stored at the same time.</summary>
    private const int AtOnce = 4;

    /// <summary>Rounds after which nothing more is expected of a rank of which nothing was heard, and that a store which failed is left alone.</summary>
    private const int Quiet = 3, Rest = 6;

    private const int MostAsked = 4096;

    /// <summary>Of the last bytes that were stored, those by which a file is known to be the same still.</summary>
    private const int Remembered = 64;

    private static readonly TimeSpan s_fresh = TimeSpan.FromSeconds(1);

    private readonly ConcurrentDictionary<RankName, long> _heard = [];
    private readonly ConcurrentDictionary<RankName, byte> _ended = [];
    private readonly SemaphoreSlim _last = new(0);
    private readonly ConcurrentDictionary<(RankName Rank, LogStream Stream), Place> _places = [];
    private readonly ConcurrentDictionary<JobId, JobStore> _stores = [];
    private readonly ConcurrentDictionary<string, long> _unreachable = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<(RankName Rank, LogStream Stream), long> _asked = [];

    /// <summary>This coordinator has what the rank writes, or is being sent it.</summary>
    /// <param name="rank">Which.</param>
    /// <param name="ended">The last that it wrote is stored soon: somebody may wait for it elsewhere.</param>
    public void Hear(RankName rank, bool ended = false)
    {
        if (options.OpenLogStore is null)
        {
            return;
        }
        _heard[rank] = time.GetTimestamp();
        if ((ended ? _ended.TryAdd(rank, 0) : _ended.ContainsKey(rank)) && _last.CurrentCount == 0)
        {
            _last.Release();
        }
    }

    /// <summary>Fetches what this coordinator lacks of a stream and its job's store has. Without a store, or while it is away, nothing happens.</summary>
    public async Task RestoreAsync(RankName rank, LogStream stream, CancellationToken cancellationToken)
    {
        string path = logs.Path(rank, stream);
        // Ranks of this machine's own agent write metrics and samples into the files of the job: these are never behind.
        if (options.OpenLogStore is null || logs.Readable(rank, stream) != path || !MayAsk((rank, stream)))
        {
            return;
        }
        try
        {
            long stored = await LengthOfAsync(rank, stream);
            if (stored <= FileGrowth.LengthOf(path) || await StoreOfAsync(rank.Job) is not { Opened: { } store })
            {
                return;
            }
            bool current = (await grains.GetGrain<IJobGrain>(rank.Job.Value).Get())?.Attempt == rank.Attempt;
            for (long at = FileGrowth.LengthOf(path) / ChunkSize * ChunkSize; at < stored; at += ChunkSize)
            {
                byte[] chunk = await store.ReadAsync(NameOf(rank, stream, at, (int)Math.Min(ChunkSize, stored - at)), cancellationToken);
                logs.Append(rank, stream, at, chunk, current);
            }
        }
        catch (Exception error) when (error is not OperationCanceledException)
        {
            LogNotFetched(rank.Job, rank.Attempt, Spelling.Of(stream), rank.Rank, error.Message);
        }
    }

    /// <summary>Those of the newest attempt, which are the job's.</summary>
    public Task RestoreMetricsAsync(JobRecord? job, CancellationToken cancellationToken) =>
        job is { Attempt: > 0 } ? RestoreAsync(new RankName(job.Id, job.Attempt, 0), LogStream.Metrics, cancellationToken) : Task.CompletedTask;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        var together = new ParallelOptions { MaxDegreeOfParallelism = AtOnce, CancellationToken = stoppingToken };
        while (options.OpenLogStore is not null)
        {
            if (await _last.WaitAsync(options.LogPeriod, stoppingToken))
            {
                await Task.Delay(options.LogPeriod / 10, stoppingToken);
            }
            await Parallel.ForEachAsync(_heard.Keys.GroupBy(rank => rank.Job), together, async (ranks, cancellationToken) => await StoreAsync(ranks.Key, [.. ranks], cancellationToken));
            foreach (JobId job in _stores.Keys.Except(_heard.Keys.Select(rank => rank.Job)))
            {
                _stores.TryRemove(job, out _);
            }
        }
    }

    private async Task StoreAsync(JobId job, RankName[] ranks, CancellationToken cancellationToken)
    {
        try
        {
            JobStore found = await StoreOfAsync(job);
            if (found.Address is { } unreachable && IsUnreachable(unreachable))
            {
                return;
            }
            foreach (RankName rank in ranks)
            {
                // What came before that moment is stored now; what comes later is heard of.
                long heard = _heard[rank];
                foreach (LogStream stream in found.Opened is null ? [] : StreamsOf(rank))
                {
                    await StoreAsync(found.Opened!, rank, stream, cancellationToken);
                }
                if (time.GetElapsedTime(heard) > Quiet * options.LogPeriod && _heard.TryRemove(KeyValuePair.Create(rank, heard)))
                {
                    await LeaveAsync(found.Opened, rank, cancellationToken);
                }
            }
            if (found.Address is { } reached && _unreachable.TryRemove(reached, out _))
            {
                LogStoredAgain(reached);
            }
        }
        catch (Exception error) when (error is not OperationCanceledException || !cancellationToken.IsCancellationRequested)
        {
            // What is not known of the job is asked again in the next round.
            if (_stores.GetValueOrDefault(job)?.Address is { } address)
            {
                if (!_unreachable.ContainsKey(address))
                {
                    LogNotStored(job, address, error.Message);
                }
                _unreachable[address] = time.GetTimestamp();
            }
        }
    }

    private static LogStream[] StreamsOf(RankName rank) =>
        rank.Rank == 0 ? [LogStream.Stdout, LogStream.Stderr, LogStream.Stacks, LogStream.Metrics, LogStream.Samples] : [LogStream.Stdout, LogStream.Stderr, LogStream.Stacks];

    private async Task StoreAsync(LogStore store, RankName rank, LogStream stream, CancellationToken cancellationToken)
    {
        string path = logs.Readable(rank, stream);
        if (FileGrowth.LengthOf(path) == 0)
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
                await store.WriteAsync(NameOf(rank, stream, to, count), chunk.AsMemory(0, count), cancellationToken);
                last = chunk[Math.Max(0, count - Remembered)..count];
                to += count;
            }
        }
        while (count == ChunkSize);
        bool mine = await grains.GetGrain<ILogsGrain>(rank.Job.Value).Extend(rank, stream, from, to) == to;
        string? newest = LastChunkOf(rank, stream, to), before = LastChunkOf(rank, stream, place.Length);
        // Who asked how far it is stored, before this, may read the chunk that was the last one then: it goes with the next.
        if (place.Former is { } former && former != newest)
        {
            await store.DeleteAsync(former, cancellationToken);
        }
        if (mine)
        {
            _places[(rank, stream)] = new Place(to, last, before == newest ? null : before);
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
                await store.DeleteAsync(former, cancellationToken);
            }
        }
    }

    private async Task<long> LengthOfAsync(RankName rank, LogStream stream) =>
        (await grains.GetGrain<ILogsGrain>(rank.Job.Value).Get(rank.Attempt)).FirstOrDefault(stored => stored.Rank == rank && stored.Stream == stream)?.Length ?? 0;

    /// <summary>Kept as long as something is heard of the job, but for a store that cannot be opened yet or of late.</summary>
    private async Task<JobStore> StoreOfAsync(JobId job)
    {
        if (!_stores.TryGetValue(job, out JobStore? known) || (known.Address is not null && known.Opened is null))
        {
            JobRecord? record = known is null ? await grains.GetGrain<IJobGrain>(job.Value).Get() : null;
            string? address = known?.Address ?? (record is null ? null : JobConfigJson.Read(record.Spec.Config).Checkpoint.Store);
            _stores[job] = known = new JobStore(address, null);
            known = _stores[job] = new JobStore(address, address is null || IsUnreachable(address) ? null : options.OpenLogStore!(address));
        }
        return known.Address is { } store && IsUnreachable(store) ? known with { Opened = null } : known;
    }

    private bool IsUnreachable(string address) => _unreachable.TryGetValue(address, out long since) && time.GetElapsedTime(since) < Rest * options.LogPeriod;

    private bool MayAsk((RankName, LogStream) stream)
    {
        if (_asked.Count > MostAsked)
        {
            _asked.Clear();
        }
        long now = time.GetTimestamp();
        if (_asked.TryGetValue(stream, out long before) && time.GetElapsedTime(before) < s_fresh)
        {
            return false;
        }
        _asked[stream] = now;
        return true;
    }

    /// <summary>Null: it is full.</summary>
    private static string? LastChunkOf(RankName rank, LogStream stream, long length) =>
        length % ChunkSize == 0 ? null : NameOf(rank, stream, length / ChunkSize * ChunkSize, (int)(length % ChunkSize));

    private static string NameOf(RankName rank, LogStream stream, long at, int count)
    {
        string chunk = string.Create(CultureInfo.InvariantCulture, $"logs/{rank.Job}/attempt-{rank.Attempt}/rank-{rank.Rank}.{Spelling.Of(stream)}/{at / ChunkSize:D6}");
        return count == ChunkSize ? chunk : string.Create(CultureInfo.InvariantCulture, $"{chunk}-{count}");
    }

    /// <param name="Address">Null: the job names none, and keeps its files in the home.</param>
    /// <param name="Opened">Null: it cannot be used now.</param>
    private sealed record JobStore(string? Address, LogStore? Opened);

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

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Job}: what its ranks write stays on this machine until {Store} can be written: {Problem}")]
    private partial void LogNotStored(JobId job, string store, string problem);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Store} takes what ranks write again")]
    private partial void LogStoredAgain(string store);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Job}: {Stream} of attempt {Attempt}, rank {Rank} cannot be fetched from the job's store: {Problem}")]
    private partial void LogNotFetched(JobId job, int attempt, string stream, int rank, string problem);
}
