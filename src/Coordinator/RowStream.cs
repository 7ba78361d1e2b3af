using System.IO.Compression;
using Microsoft.AspNetCore.Http;

namespace Trainer.Coordinator;

/// <summary>
/// All jobs that the caller may see as server-sent events: "rows" (those that changed, at most a few hundred at once) and, once all
/// have been told, "whole". Compressed when the client can read that: thousands of rows are alike.
/// </summary>
internal sealed class RowStream(HttpContext context, JobRows rows)
{
    private const int MostAtOnce = 500;

    private static readonly TimeSpan s_silence = TimeSpan.FromSeconds(15);

    /// <summary>Changes are told so often at most.</summary>
    private static readonly TimeSpan s_pace = TimeSpan.FromMilliseconds(250);

    public async Task RunAsync(Caller caller, TimeProvider time, CancellationToken cancellationToken)
    {
        var position = RowsPosition.Parse(context.Request.Query["after"] is [{ } after, ..] ? after : context.Request.Headers["Last-Event-ID"]);
        using JobRows.RowsLease lease = rows.Watch();
        await using Stream body = Open();
        await context.Response.StartAsync(cancellationToken);
        bool whole = false;
        long life = position.Life;
        while (true)
        {
            (IReadOnlyList<VersionedRow> changed, RowsPosition next, bool isWhole) = await rows.AfterAsync(position, whole, caller, s_silence, cancellationToken);
            foreach (VersionedRow[] some in changed.Chunk(MostAtOnce))
            {
                await TellAsync(body, "rows", new RowsPosition(next.Life, some[^1].Version), next.Life != life, some, cancellationToken);
                life = next.Life;
            }
            if (isWhole && !whole)
            {
                await TellAsync(body, "whole", next, next.Life != life, [], cancellationToken);
                life = next.Life;
            }
            else if (changed.Count == 0)
            {
                await body.WriteAsync(": nothing new\n\n"u8.ToArray(), cancellationToken);
            }
            (position, whole) = (next, isWhole);
            await body.FlushAsync(cancellationToken);
            await Task.Delay(s_pace, time, cancellationToken);
        }
    }

    private Stream Open()
    {
        context.Response.ContentType = EventStream.ContentType;
        context.Response.Headers.CacheControl = "no-store";
        context.Response.Headers["X-Accel-Buffering"] = "no";
        if (!Http.Accepts(context.Request, "gzip"))
        {
            return context.Response.Body;
        }
        context.Response.Headers.ContentEncoding = "gzip";
        return new GZipStream(context.Response.Body, CompressionLevel.Fastest, leaveOpen: true);
    }

    /// <summary>{"anew": true, "rows": [...]}: anew, because all that was told before belongs to another life.</summary>
    private static async Task TellAsync(Stream body, string kind, RowsPosition id, bool anew, VersionedRow[] some, CancellationToken cancellationToken)
    {
        using var record = new MemoryStream();
        record.Write(System.Text.Encoding.UTF8.GetBytes($"id: {id}\nevent: {kind}\ndata: {{\"anew\":{(anew ? "true" : "false")},\"rows\":["));
        for (int i = 0; i < some.Length; i++)
        {
            if (i > 0)
            {
                record.WriteByte((byte)',');
            }
            record.Write(some[i].Json);
        }
        record.Write("]}\n\n"u8);
        await body.WriteAsync(record.GetBuffer().AsMemory(0, (int)record.Length), cancellationToken);
    }
}
