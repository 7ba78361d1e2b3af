using System.Globalization;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.Hosting;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>What a job does while it does it: answers that wait for news, and server-sent events.</summary>
internal sealed class StreamApi(JobApi jobs, JobWatches watches, JobRows rows, RankLogs logs, LogArchive archive, FileGrowth growth, TrainerHome home,
    Sessions sessions, Access access, TimeProvider time, IHostApplicationLifetime lifetime)
{
    private const int MostWaiting = 4096;
    private const int LongestWait = 30;

    private static readonly TimeSpan s_look = TimeSpan.FromSeconds(1);

    /// <summary>After the end of a job nothing more that its ranks wrote is waited for.</summary>
    private static readonly TimeSpan s_settled = TimeSpan.FromSeconds(30);

    private int _waiting;

    public void Map(IEndpointRouteBuilder routes)
    {
        Role[] users = [Role.User];
        const string after = "Events after this sequence number.", wait = "Seconds to wait for news, at most 30; 0 when absent.";
        routes.MapGet("/v1/jobs", ListAsync).WithMetadata(new Operation(
            "Every job, in order of submission. With Accept: text/event-stream each in brief, and what changes; the header Last-Event-ID resumes.")
        {
            Roles = users, Answer = ContractsJson.Default.JobList, Query = new Dictionary<string, string> { ["after"] = "Of the stream: instead of the header." },
        });
        routes.MapGet("/v1/jobs/{job}/events", EventsAsync).WithMetadata(new Operation("What happened to a job. With Accept: text/event-stream as /stream, events only.")
        {
            Roles = users, Answer = ContractsJson.Default.EventList, Query = new Dictionary<string, string> { ["after"] = after, ["wait"] = wait },
        });
        routes.MapGet("/v1/jobs/{job}/stream", context => StreamAsync(context, onlyEvents: false))
            .WithMetadata(new Operation("Server-sent events of a job until it ends: event, metrics and status. The header Last-Event-ID resumes.")
            {
                Roles = users, ContentType = EventStream.ContentType,
                Query = new Dictionary<string, string> { ["after"] = after, ["step"] = "Metrics after this step." },
            });
        routes.MapGet("/v1/jobs/{job}/attempts/{attempt}/ranks/{rank}/{stream}", BytesAsync)
            .WithMetadata(new Operation("What a rank wrote (stdout, stderr, metrics, samples or stacks), at most 1 MiB; the header X-Length says how much there is.")
            {
                Roles = users, ContentType = "application/octet-stream",
                Query = new Dictionary<string, string> { ["offset"] = "Of the first byte; 0 when absent.", ["wait"] = wait },
            });
    }

    private Task ListAsync(HttpContext context) => Http.Asks(context.Request, EventStream.ContentType)
        ? WaitingAsync(context, cancellationToken => new RowStream(context, rows).RunAsync(Access.Of(context), time, cancellationToken))
        : jobs.ListAsync(context);

    /// <summary>The job's history after ?after=; of none, waits for some, or for the end of the job, at most ?wait= seconds.</summary>
    private async Task EventsAsync(HttpContext context)
    {
        if (Http.Asks(context.Request, EventStream.ContentType))
        {
            await StreamAsync(context, onlyEvents: true);
            return;
        }
        int after = (int)Number(context, "after", int.MaxValue);
        TimeSpan wait = Wait(context);
        IJobGrain grain = await jobs.FindAsync(context);
        JobRecord job = await grain.Get() ?? throw new ApiException(StatusCodes.Status404NotFound, "there is no such job; see \"trainer list\"");
        if (wait > TimeSpan.Zero && !IsNews(job, after))
        {
            await WaitingAsync(context, async cancellationToken =>
            {
                long start = time.GetTimestamp();
                using JobWatchLease watch = watches.Watch(job.Id);
                JobSight? sight = null;
                for (TimeSpan left = wait; left > TimeSpan.Zero && !IsNews(job, after); left = wait - time.GetElapsedTime(start))
                {
                    sight = await watch.AfterAsync(sight, left, cancellationToken);
                    job = sight?.Job ?? job;
                }
            });
        }
        await Http.AnswerAsync(context, new EventList
        {
            Job = job.Id,
            Status = job.Status,
            Events = [.. job.History.Where(entry => entry.Sequence > after)],
        }, ContractsJson.Default.EventList);
    }

    private static bool IsNews(JobRecord job, int after) => job.Status.IsTerminal() || (job.History is [.., var last] && last.Sequence > after);

    /// <summary>Server-sent events until the job has ended. Last-Event-ID resumes; so do ?after= (an event) and ?step= (of metrics).</summary>
    private async Task StreamAsync(HttpContext context, bool onlyEvents)
    {
        var position = new StreamPosition((int)Number(context, "after", int.MaxValue), Number(context, "step", long.MaxValue));
        bool resumed = StreamPosition.TryParse(context.Request.Headers["Last-Event-ID"], out StreamPosition last);
        var id = new JobId((await jobs.FindAsync(context)).GetPrimaryKeyString());
        await WaitingAsync(context, async cancellationToken =>
        {
            using JobWatchLease watch = watches.Watch(id);
            await new EventStream(context, home.Job(id).Metrics, time, onlyEvents).RunAsync(watch, resumed ? last : position, resumed, cancellationToken);
        });
    }

    /// <summary>
    /// Bytes of a rank's stream from ?offset= on, at most 1 MiB, as far as they are known here; X-Length is how far that is. Of none,
    /// waits for some, at most ?wait= seconds.
    /// </summary>
    private async Task BytesAsync(HttpContext context)
    {
        (int attempt, int rank, LogStream stream) = Http.StreamOf(context);
        long offset = Number(context, "offset", long.MaxValue);
        TimeSpan wait = Wait(context);
        JobRecord job = await (await jobs.FindAsync(context)).Get() ?? throw new ApiException(StatusCodes.Status404NotFound, "there is no such job; see \"trainer list\"");
        // Who follows a job may ask for what its next attempt will write.
        if (attempt < 1 || attempt > job.Attempt + 1 || rank >= job.Spec.Ranks)
        {
            throw new ApiException(StatusCodes.Status404NotFound, "there is no such stream");
        }
        var name = new RankName(job.Id, attempt, rank);
        if (job.EndedAt is { } ended && time.GetUtcNow() - ended > s_settled)
        {
            wait = TimeSpan.Zero;
        }
        await archive.RestoreAsync(name, stream, context.RequestAborted);
        if (wait > TimeSpan.Zero && FileGrowth.LengthOf(logs.Readable(name, stream)) <= offset)
        {
            await WaitingAsync(context, async cancellationToken =>
            {
                long start = time.GetTimestamp();
                for (TimeSpan left = wait; left > TimeSpan.Zero; left = wait - time.GetElapsedTime(start))
                {
                    // Which file it is may change while it does not exist.
                    string awaited = logs.Readable(name, stream);
                    long length = FileGrowth.LengthOf(awaited);
                    if (length > offset)
                    {
                        break;
                    }
                    await growth.WaitAsync(awaited, length, left < s_look ? left : s_look, cancellationToken);
                    await archive.RestoreAsync(name, stream, cancellationToken);
                }
            });
        }
        await CopyAsync(context, logs.Readable(name, stream), offset);
    }

    private static async Task CopyAsync(HttpContext context, string path, long offset)
    {
        context.Response.ContentType = "application/octet-stream";
        if (!File.Exists(path))
        {
            context.Response.Headers["X-Length"] = "0";
            return;
        }
        await using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        long length = file.Length;
        context.Response.Headers["X-Length"] = length.ToString(CultureInfo.InvariantCulture);
        file.Position = Math.Min(offset, length);
        byte[] chunk = new byte[64 << 10];
        for (long left = Math.Min(length - file.Position, LogLength.MaxPiece); left > 0;)
        {
            int read = await file.ReadAsync(chunk.AsMemory(0, (int)Math.Min(left, chunk.Length)), context.RequestAborted);
            if (read == 0)
            {
                break;
            }
            await context.Response.Body.WriteAsync(chunk.AsMemory(0, read), context.RequestAborted);
            left -= read;
        }
    }

    /// <summary>
    /// Ends early, and well, when the coordinator stops, or once who waits would not be let in any more. Only so many requests wait at once.
    /// </summary>
    private async Task WaitingAsync(HttpContext context, Func<CancellationToken, Task> wait)
    {
        using var shutOut = new CancellationTokenSource();
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted, lifetime.ApplicationStopping, shutOut.Token);
        Task watching = WatchAsync(Access.Of(context), context.Items[typeof(SessionEntry)] as SessionEntry, shutOut, ended.Token);
        try
        {
            if (Interlocked.Increment(ref _waiting) > MostWaiting)
            {
                throw new ApiException(StatusCodes.Status503ServiceUnavailable, "too many clients wait for news; try again later, or without wait");
            }
            await wait(ended.Token);
        }
        catch (OperationCanceledException) when (lifetime.ApplicationStopping.IsCancellationRequested)
        {
            // What is known by now is the answer.
        }
        catch (OperationCanceledException) when (shutOut.IsCancellationRequested)
        {
            // Of a stream that has begun the end says it.
            if (!context.Response.HasStarted)
            {
                throw new ApiException(StatusCodes.Status401Unauthorized, "a valid token is needed");
            }
        }
        finally
        {
            Interlocked.Decrement(ref _waiting);
            await ended.CancelAsync();
            await watching.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    /// <summary>Who cannot be asked about is shut out, too.</summary>
    private async Task WatchAsync(Caller caller, SessionEntry? session, CancellationTokenSource shutOut, CancellationToken ended)
    {
        try
        {
            do
            {
                await Task.Delay(s_look, time, ended);
            }
            while (await sessions.StillHoldsAsync(caller, session, access).WaitAsync(ended));
        }
        finally
        {
            if (!ended.IsCancellationRequested)
            {
                await shutOut.CancelAsync();
            }
        }
    }

    private static TimeSpan Wait(HttpContext context) => TimeSpan.FromSeconds(Math.Min(Number(context, "wait", int.MaxValue), LongestWait));

    /// <exception cref="ApiException">It is there and no number.</exception>
    private static long Number(HttpContext context, string key, long most) => context.Request.Query[key] switch
    {
        [] => 0,
        [var text] when long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long number) && number <= most => number,
        _ => throw new ApiException(StatusCodes.Status400BadRequest, $"{key}: one whole number from 0 to {most} is expected"),
    };
}
