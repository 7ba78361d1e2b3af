using System.Globalization;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>How far a client has read: the newest event, and the newest step of the metrics. It is the id of every record.</summary>
internal readonly record struct StreamPosition(int Event, long Step)
{
    /// <returns>False for one at the beginning, too.</returns>
    public static bool TryParse(string? text, out StreamPosition position)
    {
        string[] parts = text?.Split('-') ?? [];
        position = parts.Length == 2
            && int.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out int entry)
            && long.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out long step)
            ? new StreamPosition(entry, step)
            : default;
        return position != default;
    }

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Event}-{Step}");
}

/// <summary>
/// A job as server-sent events: "event" (a line of its history), "metrics" (a line of metrics.jsonl; each step once, in order) and
/// "status" (the job without its history). A client that reads slowly costs nobody anything: it is given what is newest when it comes.
/// </summary>
internal sealed class EventStream(HttpContext context, string metrics, TimeProvider time, bool onlyEvents)
{
    public const string ContentType = "text/event-stream";

    /// <summary>Proxies close what is silent for longer.</summary>
    private static readonly TimeSpan s_silence = TimeSpan.FromSeconds(15);

    /// <summary>What the last lines of the metrics may take from another machine after the job has ended.</summary>
    private static readonly TimeSpan s_settling = TimeSpan.FromSeconds(3);

    private StreamPosition _position;
    private byte[] _status = [];

    /// <summary>Ends with the job. A client that comes back when there is no more is told not to.</summary>
    public async Task RunAsync(JobWatchLease watch, StreamPosition from, bool resumed, CancellationToken cancellationToken)
    {
        _position = from;
        JobSight? sight = null;
        while (true)
        {
            JobSight? next = await watch.AfterAsync(sight, Patience(sight), cancellationToken);
            if (sight is null && next is not null && resumed && IsOver(next) && !HasNews(next))
            {
                context.Response.StatusCode = StatusCodes.Status204NoContent;
                return;
            }
            await StartAsync(cancellationToken);
            if (next is null || ReferenceEquals(next, sight))
            {
                await context.Response.WriteAsync(": nothing new\n\n", cancellationToken);
            }
            else
            {
                sight = next;
                await SendAsync(sight, cancellationToken);
            }
            await context.Response.Body.FlushAsync(cancellationToken);
            if (sight is not null && IsOver(sight))
            {
                return;
            }
        }
    }

    private static TimeSpan Patience(JobSight? sight) => sight?.Job.Status.IsTerminal() == true ? s_settling : s_silence;

    private bool IsOver(JobSight sight) =>
        sight.Job.Status.IsTerminal() && (onlyEvents || !(time.GetUtcNow() - sight.Job.EndedAt < s_settling));

    private bool HasNews(JobSight sight) => sight.Job.History.Any(entry => entry.Sequence > _position.Event)
        || (!onlyEvents && sight.Metrics.Any(line => line.Step > _position.Step));

    private async Task StartAsync(CancellationToken cancellationToken)
    {
        if (!context.Response.HasStarted)
        {
            context.Response.ContentType = ContentType;
            context.Response.Headers.CacheControl = "no-store";
            context.Response.Headers["X-Accel-Buffering"] = "no";
            await context.Response.StartAsync(cancellationToken);
        }
    }

    private async Task SendAsync(JobSight sight, CancellationToken cancellationToken)
    {
        foreach (HistoryEntry entry in sight.Job.History.Where(entry => entry.Sequence > _position.Event))
        {
            _position = _position with { Event = entry.Sequence };
            await WriteAsync("event", JsonSerializer.SerializeToUtf8Bytes(entry, ContractsJson.OneLine.HistoryEntry), cancellationToken);
        }
        if (onlyEvents)
        {
            return;
        }
        foreach (MetricsLine line in Metrics(sight))
        {
            _position = _position with { Step = line.Step };
            await WriteAsync("metrics", line.Json, cancellationToken);
        }
        if (!sight.Status.AsSpan().SequenceEqual(_status))
        {
            _status = sight.Status;
            await WriteAsync("status", _status, cancellationToken);
        }
    }

    /// <summary>Those that the watch no longer keeps are read from the file, by this client alone and once.</summary>
    private IEnumerable<MetricsLine> Metrics(JobSight sight)
    {
        long first = sight.Metrics is [var oldest, ..] ? oldest.Step : long.MaxValue;
        IEnumerable<MetricsLine> older = sight.IsWhole || _position.Step + 1 >= first ? [] : MetricsTail.ReadAfter(metrics, _position.Step).TakeWhile(line => line.Step < first);
        return older.Concat(sight.Metrics.Where(line => line.Step > _position.Step));
    }

    private async Task WriteAsync(string kind, ReadOnlyMemory<byte> json, CancellationToken cancellationToken)
    {
        await context.Response.WriteAsync($"id: {_position}\nevent: {kind}\ndata: ", cancellationToken);
        await context.Response.Body.WriteAsync(json, cancellationToken);
        await context.Response.WriteAsync("\n\n", cancellationToken);
    }
}
