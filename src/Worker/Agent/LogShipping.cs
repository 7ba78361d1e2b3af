using System.Collections.Immutable;
using System.Net;
using Microsoft.Extensions.Logging;
using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>
/// Sends what ranks write to a coordinator elsewhere, in order and to the last byte, also when rank, agent or coordinator were
/// killed meanwhile: the files are the memory, and the coordinator says how much it has. Run by one caller.
/// </summary>
internal sealed partial class LogShipping(TrainerHome home, CoordinatorClient coordinator, RankSupervisor supervisor, TimeProvider time, ILogger log)
{
    private static readonly TimeSpan s_often = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan s_backoff = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan s_unwelcomeFor = TimeSpan.FromMinutes(1);

    private readonly Dictionary<RankName, ImmutableArray<ShippedFile>> _ranks = [];
    private readonly Dictionary<RankName, long> _unwelcome = [];
    private readonly byte[] _piece = new byte[LogLength.MaxPiece];
    private volatile bool _complete;
    private bool _reached = true;
    private volatile string? _problem;

    // Read before a rank is started here: one that is being started is not yet known to live.
    private readonly RankName[] _left = [.. home.RanksWith("started")];

    /// <summary>Why the coordinator, which answers, does not take what ranks write; null: it does.</summary>
    public string? Problem => _problem;

    /// <summary>Everything that ended ranks wrote has arrived.</summary>
    public bool IsComplete => _complete;

    public async Task RunAsync(CancellationToken cancellationToken)
    {
        foreach (RankName name in _left)
        {
            Track(name);
        }
        while (true)
        {
            foreach (RankName name in supervisor.Names)
            {
                Track(name);
            }
            bool arrived = true;
            bool more = false;
            bool complete = true;
            foreach ((RankName name, ImmutableArray<ShippedFile> files) in _ranks)
            {
                // Asked before the lengths are: what a living rank writes later is for the next round.
                bool ended = !supervisor.IsAlive(name);
                Progress progress = await ShipAsync(name, files, cancellationToken);
                arrived &= progress != Progress.Failed;
                more |= progress == Progress.More;
                if (ended && progress == Progress.Complete)
                {
                    Finish(name);
                }
                complete &= !ended || progress is Progress.Complete or Progress.Unwelcome;
            }
            _complete = complete;
            if (!more || !arrived)
            {
                await Task.Delay(arrived ? s_often : s_backoff, cancellationToken);
            }
        }
    }

    private void Track(RankName name)
    {
        AttemptFiles attempt = home.Job(name.Job).Attempt(name.Attempt);
        if (_ranks.ContainsKey(name) || File.Exists(attempt.ShippedOf(name.Rank)) || !File.Exists(attempt.StartedOf(name.Rank)))
        {
            return;
        }
        JobFiles job = home.Job(name.Job);
        ImmutableArray<ShippedFile> files =
        [
            new(LogStream.Stdout, attempt.StdoutOf(name.Rank)),
            new(LogStream.Stderr, attempt.StderrOf(name.Rank)),
            new(LogStream.Stacks, attempt.StacksOf(name.Rank)),
        ];
        _ranks[name] = name.Rank > 0 ? files : [.. files, new(LogStream.Metrics, job.Metrics), new(LogStream.Samples, job.Samples)];
    }

    /// <summary>A piece of each file.</summary>
    private async Task<Progress> ShipAsync(RankName name, ImmutableArray<ShippedFile> files, CancellationToken cancellationToken)
    {
        if (_unwelcome.TryGetValue(name, out long since) && time.GetElapsedTime(since) < s_unwelcomeFor)
        {
            return Progress.Unwelcome;
        }
        Progress worst = Progress.Complete;
        foreach (ShippedFile file in files.Where(file => !IsAnotherAttempts(name, file)))
        {
            Progress progress = await ShipAsync(name, file, cancellationToken);
            if (progress == Progress.Unwelcome)
            {
                return progress;
            }
            worst = progress > worst ? progress : worst;
        }
        return worst;
    }

    private async Task<Progress> ShipAsync(RankName name, ShippedFile file, CancellationToken cancellationToken)
    {
        try
        {
            using FileStream source = new(file.Path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);
            if (file.Arrived >= source.Length)
            {
                return Progress.Complete;
            }
            // What a coordinator has of it is not known before it was asked, with an empty piece.
            long offset = file.Arrived ?? 0;
            source.Position = offset;
            int count = file.Arrived is null ? 0 : await source.ReadAtLeastAsync(_piece, _piece.Length, throwOnEndOfStream: false, cancellationToken);
            file.Arrived = await coordinator.SendLogAsync(name, file.Stream, offset, _piece.AsMemory(0, count), cancellationToken);
            Reached();
            return file.Arrived >= source.Length ? Progress.Complete : count > 0 && file.Arrived <= offset ? Progress.Failed : Progress.More;
        }
        catch (Exception error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            return Progress.Complete;
        }
        catch (CoordinatorException error) when (error.Status is HttpStatusCode.NotFound or HttpStatusCode.Gone)
        {
            if (!_unwelcome.ContainsKey(name))
            {
                LogUnwelcome(name.Job, name.Attempt, error.Message);
            }
            // A coordinator may not know yet what it will know.
            _unwelcome[name] = time.GetTimestamp();
            return Progress.Unwelcome;
        }
        catch (Exception error) when (error is CoordinatorException or IOException or UnauthorizedAccessException)
        {
            if (_reached)
            {
                LogFailed(name.Job, name.Attempt, error.Message);
            }
            _reached = false;
            // Silence is known to whoever does not hear.
            _problem = error is CoordinatorException { Status: null } ? null : $"its logs wait there: {error.Message}";
            return Progress.Failed;
        }
    }

    private void Reached()
    {
        if (!_reached)
        {
            LogBack();
        }
        _reached = true;
        _problem = null;
    }

    /// <summary>Metrics and samples are files of the job: what is in them before an attempt has written, or after the next has started, is not this attempt's.</summary>
    private bool IsAnotherAttempts(RankName name, ShippedFile file) =>
        file.Stream is LogStream.Metrics or LogStream.Samples
        && (supervisor.NewestAttempt(name.Job) > name.Attempt
            || File.GetLastWriteTimeUtc(file.Path) < File.GetLastWriteTimeUtc(home.Job(name.Job).Attempt(name.Attempt).StartedOf(name.Rank)));

    private void Finish(RankName name)
    {
        _ranks.Remove(name);
        try
        {
            File.WriteAllBytes(home.Job(name.Job).Attempt(name.Attempt).ShippedOf(name.Rank), []);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // The coordinator will be asked again, and say that it has everything.
            LogFailed(name.Job, name.Attempt, error.Message);
        }
    }

    /// <summary>The later, the worse.</summary>
    private enum Progress { Complete, More, Failed, Unwelcome }

    private sealed class ShippedFile(LogStream stream, string path)
    {
        public LogStream Stream { get; } = stream;
        public string Path { get; } = path;

        /// <summary>How much the coordinator has; null before it has said.</summary>
        public long? Arrived { get; set; }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Job}: logs of attempt {Attempt} wait here: {Problem}")]
    private partial void LogFailed(JobId job, int attempt, string problem);

    [LoggerMessage(Level = LogLevel.Information, Message = "logs arrive again")]
    private partial void LogBack();

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Job}: the coordinator does not want the logs of attempt {Attempt}: {Problem}")]
    private partial void LogUnwelcome(JobId job, int attempt, string problem);
}
