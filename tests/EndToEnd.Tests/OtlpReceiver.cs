using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace Trainer.EndToEnd.Tests;

/// <summary>A span as it arrived.</summary>
internal sealed record ReceivedSpan(string Trace, string Id, string Parent, string Name, DateTimeOffset Start, DateTimeOffset End,
    IReadOnlyDictionary<string, string> Attributes, int Status);

/// <summary>A value of a metric as it arrived: of a histogram its count.</summary>
internal sealed record ReceivedPoint(string Name, string Unit, IReadOnlyDictionary<string, string> Attributes, double Value);

/// <summary>
/// A collector that takes OTLP over HTTP with protobuf bodies, which it decodes by the field numbers of the published .proto files and
/// with no code of the sender's.
/// </summary>
internal sealed class OtlpReceiver : IAsyncDisposable
{
    private readonly WebApplication _app;

    private OtlpReceiver(WebApplication app, Uri address) => (_app, Address) = (app, address);

    public Uri Address { get; }

    public ConcurrentQueue<ReceivedSpan> Spans { get; } = new();

    public ConcurrentQueue<ReceivedPoint> Points { get; } = new();

    /// <summary>Attributes of who sent.</summary>
    public ConcurrentDictionary<string, string> Resource { get; } = new();

    /// <summary>Value of the header "x-key" of every request.</summary>
    public ConcurrentDictionary<string, int> Keys { get; } = new();

    public static async Task<OtlpReceiver> StartAsync()
    {
        int port = FreePort.Take();
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, port));
        WebApplication app = builder.Build();
        var receiver = new OtlpReceiver(app, new Uri($"http://127.0.0.1:{port}"));
        app.MapPost("/v1/traces", context => receiver.TakeAsync(context, receiver.TakeSpans));
        app.MapPost("/v1/metrics", context => receiver.TakeAsync(context, receiver.TakeMetrics));
        await app.StartAsync();
        return receiver;
    }

    public async ValueTask DisposeAsync()
    {
        await _app.StopAsync();
        await _app.DisposeAsync();
    }

    private async Task TakeAsync(HttpContext context, Action<Proto> take)
    {
        using var body = new MemoryStream();
        await context.Request.Body.CopyToAsync(body);
        Keys.AddOrUpdate(context.Request.Headers["x-key"].ToString(), 1, (_, count) => count + 1);
        take(new Proto(body.ToArray()));
        context.Response.ContentType = "application/x-protobuf";
    }

    /// <summary>ExportTraceServiceRequest.resource_spans.scope_spans.spans.</summary>
    private void TakeSpans(Proto request)
    {
        foreach (Proto resource in request.Messages(1))
        {
            TakeResource(resource);
            foreach (Proto span in resource.Messages(2).SelectMany(scope => scope.Messages(2)))
            {
                Spans.Enqueue(new ReceivedSpan(span.Hex(1), span.Hex(2), span.Hex(4), span.Text(5), Time(span.Fixed(7)), Time(span.Fixed(8)),
                    Attributes(span, 9), (int)(span.Messages(15).FirstOrDefault()?.Number(3) ?? 0)));
            }
        }
    }

    /// <summary>ExportMetricsServiceRequest.resource_metrics.scope_metrics.metrics: gauge 5, sum 7, histogram 9.</summary>
    private void TakeMetrics(Proto request)
    {
        foreach (Proto resource in request.Messages(1))
        {
            TakeResource(resource);
            foreach (Proto metric in resource.Messages(2).SelectMany(scope => scope.Messages(2)))
            {
                foreach (Proto point in metric.Messages(5).Concat(metric.Messages(7)).SelectMany(data => data.Messages(1)))
                {
                    // NumberDataPoint: as_double 4, as_int 6, attributes 7.
                    double value = point.Has(4) ? BitConverter.UInt64BitsToDouble(point.Fixed(4)) : (long)point.Fixed(6);
                    Points.Enqueue(new ReceivedPoint(metric.Text(1), metric.Text(3), Attributes(point, 7), value));
                }
                foreach (Proto point in metric.Messages(9).SelectMany(data => data.Messages(1)))
                {
                    // HistogramDataPoint: count 4, attributes 9.
                    Points.Enqueue(new ReceivedPoint(metric.Text(1), metric.Text(3), Attributes(point, 9), point.Fixed(4)));
                }
            }
        }
    }

    private void TakeResource(Proto resource)
    {
        foreach ((string key, string value) in resource.Messages(1).SelectMany(told => Attributes(told, 1)))
        {
            Resource[key] = value;
        }
    }

    /// <summary>KeyValue: key 1, value 2; AnyValue: string 1, bool 2, int 3, double 4.</summary>
    private static Dictionary<string, string> Attributes(Proto message, int field) => message.Messages(field).ToDictionary(pair => pair.Text(1), pair =>
    {
        Proto value = pair.Messages(2).First();
        return value.Has(1) ? value.Text(1) : value.Has(4)
            ? BitConverter.UInt64BitsToDouble(value.Fixed(4)).ToString(CultureInfo.InvariantCulture)
            : ((long)(value.Number(3) ?? value.Number(2) ?? 0)).ToString(CultureInfo.InvariantCulture);
    });

    private static DateTimeOffset Time(ulong nanoseconds) => DateTimeOffset.UnixEpoch.AddTicks((long)(nanoseconds / 100));

    /// <summary>One protobuf message: its fields in order.</summary>
    private sealed class Proto
    {
        private readonly ILookup<int, object> _fields;

        public Proto(byte[] bytes)
        {
            var fields = new List<(int Field, object Value)>();
            for (int at = 0; at < bytes.Length;)
            {
                ulong key = Varint(bytes, ref at);
                object value = (key & 7) switch
                {
                    0 => Varint(bytes, ref at),
                    1 => BinaryPrimitives.ReadUInt64LittleEndian(Take(bytes, 8, ref at)),
                    2 => Take(bytes, (int)Varint(bytes, ref at), ref at).ToArray(),
                    5 => (ulong)BinaryPrimitives.ReadUInt32LittleEndian(Take(bytes, 4, ref at)),
                    _ => throw new InvalidDataException($"wire type {key & 7}"),
                };
                fields.Add(((int)(key >> 3), value));
            }
            _fields = fields.ToLookup(field => field.Field, field => field.Value);
        }

        public bool Has(int field) => _fields.Contains(field);

        public IEnumerable<Proto> Messages(int field) => _fields[field].Select(value => new Proto((byte[])value));

        public string Text(int field) => _fields[field].FirstOrDefault() is byte[] bytes ? Encoding.UTF8.GetString(bytes) : "";

        public string Hex(int field) => _fields[field].FirstOrDefault() is byte[] bytes ? Convert.ToHexStringLower(bytes) : "";

        public ulong? Number(int field) => _fields[field].FirstOrDefault() as ulong?;

        public ulong Fixed(int field) => Number(field) ?? 0;

        private static ReadOnlySpan<byte> Take(byte[] bytes, int count, ref int at)
        {
            at += count;
            return bytes.AsSpan(at - count, count);
        }

        private static ulong Varint(byte[] bytes, ref int at)
        {
            ulong value = 0;
            for (int shift = 0; ; shift += 7)
            {
                byte part = bytes[at++];
                value |= (ulong)(part & 0x7f) << shift;
                if (part < 0x80)
                {
                    return value;
                }
            }
        }
    }
}
