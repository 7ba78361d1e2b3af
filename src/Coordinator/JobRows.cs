using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;
using System.Threading.Channels;
using Microsoft.Extensions.Logging;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>How far a client has read of all rows; it is the id of every record.</summary>
/// <param name="Life">Which life of the rows: those of another are to be read anew.</param>
internal readonly record struct RowsPosition(long Life, long Version)
{
    public static RowsPosition Parse(string? text) =>
        text?.Split('-') is [var life, var version]
            && long.TryParse(life, NumberStyles.None, CultureInfo.InvariantCulture, out long known)
            && long.TryParse(version, NumberStyles.None, CultureInfo.InvariantCulture, out long number)
            ? new RowsPosition(known, number)
            : default;

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Life}-{Version}");
}

/// <param name="Json">Of the <see cref="JobRow"/>, on one line.</param>
internal sealed record VersionedRow(long Version, JobRow Row, byte[] Json);

/// <summary>
/// Every job in brief, for all who watch lists. Kept up to date while somebody does and a while longer: jobs of this process tell when
/// something happened to them, and all are looked at now and then because others of a cluster cannot.
/// </summary>
public sealed partial class JobRows(IGrainFactory grains, TimeProvider time, ILogger<JobRows> log, TimeSpan sweep)
{
    private const int AtOnce = 128;

    /// <summary>Many things that happen at once are one change.</summary>
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan s_linger = TimeSpan.FromMinutes(1);

    private readonly Lock _lock = new();
    private readonly Dictionary<JobId, LinkedListNode<VersionedRow>> _rows = [];

    /// <summary>What changed last comes last.</summary>
    private readonly LinkedList<VersionedRow> _byVersion = [];
    private readonly HashSet<JobId> _told = [];
    private readonly Channel<bool> _wake = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private long _life, _version, _left;
    private int _watchers;
    private bool _runs, _whole;

    /// <summary>Something happened to the job.</summary>
    public void Tell(JobId job)
    {
        lock (_lock)
        {
            if (!_runs || !_told.Add(job))
            {
                return;
            }
        }
        _wake.Writer.TryWrite(true);
    }

    internal RowsLease Watch()
    {
        lock (_lock)
        {
            _watchers++;
            if (!_runs)
            {
                _runs = true;
                // Lives are told apart over restarts too.
                _life = time.GetUtcNow().ToUnixTimeMilliseconds();
                _ = Task.Run(RunAsync);
            }
        }
        return new RowsLease(this);
    }

    /// <summary>
    /// What changed after the position and may be seen, oldest change first, once something has; after the time perhaps nothing. A
    /// position of another life stands at the beginning.
    /// </summary>
    /// <returns>Whole: every job has been read since the rows came to life.</returns>
    internal async Task<(IReadOnlyList<VersionedRow> Rows, RowsPosition Position, bool Whole)> AfterAsync(RowsPosition seen, bool wasWhole, Caller caller, TimeSpan atMost, CancellationToken cancellationToken)
    {
        Task changed;
        lock (_lock)
        {
            changed = seen.Life == _life && seen.Version == _version && wasWhole == _whole ? _changed.Task : Task.CompletedTask;
        }
        await changed.WaitAsync(atMost, time, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        cancellationToken.ThrowIfCancellationRequested();
        lock (_lock)
        {
            long after = seen.Life == _life ? seen.Version : 0;
            var rows = new List<VersionedRow>();
            for (LinkedListNode<VersionedRow>? node = _byVersion.Last; node is not null && node.Value.Version > after; node = node.Previous)
            {
                if (caller.MaySee(node.Value.Row.Project))
                {
                    rows.Add(node.Value);
                }
            }
            rows.Reverse();
            return (rows, new RowsPosition(_life, _version), _whole);
        }
    }

    private void Leave()
    {
        lock (_lock)
        {
            _watchers--;
            _left = time.GetTimestamp();
        }
    }

    private async Task RunAsync()
    {
        long swept = 0;
        bool isFirst = true;
        while (!TryEnd())
        {
            try
            {
                if (isFirst || time.GetElapsedTime(swept) > sweep)
                {
                    await SweepAsync(isFirst);
                    swept = time.GetTimestamp();
                    isFirst = false;
                }
                await ReadAsync(Told());
            }
            catch (Exception error)
            {
                // Whoever watches sees the rows as they were; the next look may succeed.
                LogBlind(error);
            }
            await Task.Delay(s_pause, time);
            await WaitAsync();
        }
    }

    private async Task WaitAsync()
    {
        using var waiting = new CancellationTokenSource();
        await Task.WhenAny(_wake.Reader.WaitToReadAsync(waiting.Token).AsTask(), Task.Delay(s_linger < sweep ? s_linger : sweep, time, waiting.Token));
        await waiting.CancelAsync();
        _wake.Reader.TryRead(out _);
    }

    /// <summary>All jobs at first; later those that are not known to have ended.</summary>
    private async Task SweepAsync(bool isFirst)
    {
        ImmutableArray<JobIndexEntry>[] shards = await Task.WhenAll(JobIndexShards.All.Select(shard => grains.GetGrain<IJobIndexGrain>(shard).List()));
        IEnumerable<JobIndexEntry> entries = shards.SelectMany(shard => shard).OrderByDescending(entry => entry.SubmittedAt);
        await ReadAsync([.. entries.Where(entry => isFirst || entry.Active || !IsKnownEnded(entry.Id)).Select(entry => entry.Id)]);
        lock (_lock)
        {
            if (!_whole)
            {
                _whole = true;
                Announce();
            }
        }
    }

    private bool IsKnownEnded(JobId job)
    {
        lock (_lock)
        {
            return _rows.TryGetValue(job, out LinkedListNode<VersionedRow>? node) && node.Value.Row.Status.IsTerminal();
        }
    }

    private JobId[] Told()
    {
        lock (_lock)
        {
            JobId[] told = [.. _told];
            _told.Clear();
            return told;
        }
    }

    private async Task ReadAsync(JobId[] jobs)
    {
        foreach (JobId[] some in jobs.Chunk(AtOnce))
        {
            JobRecord?[] records = await Task.WhenAll(some.Select(job => grains.GetGrain<IJobGrain>(job.Value).Get()));
            lock (_lock)
            {
                bool any = false;
                foreach (JobRecord record in records.OfType<JobRecord>())
                {
                    any |= Put(JobRow.Of(record));
                }
                if (any)
                {
                    Announce();
                }
            }
        }
    }

    private bool Put(JobRow row)
    {
        if (_rows.TryGetValue(row.Id, out LinkedListNode<VersionedRow>? before))
        {
            if (before.Value.Row == row)
            {
                return false;
            }
            _byVersion.Remove(before);
        }
        _rows[row.Id] = _byVersion.AddLast(new VersionedRow(++_version, row, JsonSerializer.SerializeToUtf8Bytes(row, ContractsJson.OneLine.JobRow)));
        return true;
    }

    private void Announce()
    {
        _changed.TrySetResult();
        _changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
    }

    private bool TryEnd()
    {
        lock (_lock)
        {
            if (_watchers > 0 || time.GetElapsedTime(_left) < s_linger)
            {
                return false;
            }
            _runs = _whole = false;
            _version = 0;
            _rows.Clear();
            _byVersion.Clear();
            _told.Clear();
            return true;
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "the jobs cannot be looked at for those who watch the list")]
    private partial void LogBlind(Exception error);

    /// <summary>A part in watching.</summary>
    internal sealed class RowsLease(JobRows rows) : IDisposable
    {
        private JobRows? _rows = rows;

        public void Dispose() => Interlocked.Exchange(ref _rows, null)?.Leave();
    }
}
