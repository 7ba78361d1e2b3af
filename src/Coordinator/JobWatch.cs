using System.Collections.Immutable;
using System.Text.Json;
using System.Threading.Channels;
using Microsoft.Extensions.Logging;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>A job as it was seen last.</summary>
/// <param name="Status">The <see cref="JobView"/> without its history, as JSON on one line.</param>
/// <param name="Metrics">The newest lines of its metrics.</param>
/// <param name="IsWhole">Those are all.</param>
internal sealed record JobSight(JobRecord Job, byte[] Status, ImmutableArray<MetricsLine> Metrics, bool IsWhole);

/// <summary>Looks at one job for all who follow it: when it is told that something happened, when its metrics grow, and once a second.</summary>
internal sealed partial class JobWatch
{
    private const int MetricsKept = 512;
    private const int MetricsBytes = 256 << 10;

    private static readonly TimeSpan s_period = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_answerTakes = TimeSpan.FromMilliseconds(150);
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(50);

    private readonly IJobGrain _job;
    private readonly TrainerHome _home;
    private readonly MetricsTail _metrics;
    private readonly LogArchive _archive;
    private readonly FileGrowth _growth;
    private readonly TimeProvider _time;
    private readonly ILogger _log;
    private readonly Channel<bool> _told = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private Task<JobRecord?>? _asked;
    private bool _isWhole;
    private volatile bool _ended;
    private volatile JobSight? _sight;
    private volatile TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public JobWatch(IJobGrain job, TrainerHome home, JobFiles files, LogArchive archive, FileGrowth growth, TimeProvider time, ILogger log)
    {
        _job = job;
        _home = home;
        _metrics = new MetricsTail(files.Metrics);
        _archive = archive;
        _growth = growth;
        _time = time;
        _log = log;
        _ = Task.Run(RunAsync);
    }

    /// <summary>Whose it is counts them.</summary>
    public int Watchers { get; set; }

    public void Tell() => _told.Writer.TryWrite(true);

    public void End()
    {
        _ended = true;
        Tell();
    }

    /// <summary>What is seen once it is no longer this; after the time the newest all the same, null when nothing has been seen yet.</summary>
    public async Task<JobSight?> AfterAsync(JobSight? seen, TimeSpan atMost, CancellationToken cancellationToken)
    {
        Task changed = _changed.Task;
        if (ReferenceEquals(_sight, seen))
        {
            await changed.WaitAsync(atMost, _time, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            cancellationToken.ThrowIfCancellationRequested();
        }
        return _sight;
    }

    private async Task RunAsync()
    {
        while (!_ended)
        {
            try
            {
                await LookAsync();
            }
            catch (Exception error)
            {
                // Whoever watches sees the job as it was; the next look may succeed.
                LogBlind(_job.GetPrimaryKeyString(), error);
            }
            await WaitAsync();
        }
    }

    private async Task LookAsync()
    {
        if (await JobAsync() is not { } job)
        {
            return;
        }
        // A store that is slow or away shows in what is missing, not in how old the rest is.
        await _archive.RestoreMetricsAsync(job, CancellationToken.None).WaitAsync(s_answerTakes, _time).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (_sight is null)
        {
            _metrics.Skip(MetricsBytes);
            _isWhole = _metrics.Offset == 0;
        }
        // After the record: of a job that has ended the metrics are whole then.
        IReadOnlyList<MetricsLine> lines = _metrics.Read();
        byte[] status = JsonSerializer.SerializeToUtf8Bytes(JobView.Of(job, _home) with { History = [] }, ContractsJson.OneLine.JobView);
        JobSight? before = _sight;
        if (before is not null && lines.Count == 0 && status.AsSpan().SequenceEqual(before.Status) && Newest(job) == Newest(before.Job))
        {
            return;
        }
        ImmutableArray<MetricsLine> metrics = [.. before?.Metrics ?? [], .. lines];
        _isWhole &= metrics.Length <= MetricsKept;
        _sight = new JobSight(job, status, metrics.Length > MetricsKept ? metrics[^MetricsKept..] : metrics, _isWhole);
        Interlocked.Exchange(ref _changed, new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)).TrySetResult();
    }

    /// <summary>Metrics do not wait for a job that is being stored: until it answers, it is as it was.</summary>
    private async Task<JobRecord?> JobAsync()
    {
        _asked ??= _job.Get();
        if (_sight is { } sight)
        {
            await Task.WhenAny(_asked, Task.Delay(s_answerTakes, _time));
            if (!_asked.IsCompleted)
            {
                return sight.Job;
            }
        }
        Task<JobRecord?> asked = _asked;
        _asked = null;
        return await asked;
    }

    private static int Newest(JobRecord job) => job.History is [.., var last] ? last.Sequence : 0;

    private async Task WaitAsync()
    {
        // Many things that happen at once are one look.
        await Task.Delay(s_pause, _time);
        using var waiting = new CancellationTokenSource();
        Task told = _told.Reader.WaitToReadAsync(waiting.Token).AsTask();
        await Task.WhenAny(told, _growth.WaitAsync(_metrics.Path, _metrics.Offset, s_period, waiting.Token));
        await waiting.CancelAsync();
        _told.Reader.TryRead(out _);
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Job} cannot be looked at for its watchers")]
    private partial void LogBlind(string job, Exception error);
}
