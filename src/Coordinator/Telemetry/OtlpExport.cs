using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using OpenTelemetry;
using OpenTelemetry.Exporter;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using OpenTelemetry.Trace;
using Trainer.Contracts;

namespace Trainer.Coordinator.Telemetry;

/// <summary>
/// Sends metrics and traces over OTLP when OpenTelemetry's own environment variables name an endpoint, and is nothing otherwise.
/// The variables say everything else too: protocol, headers, interval, sampler, service name, resource attributes.
/// </summary>
internal sealed partial class OtlpExport(CoordinatorMetrics metrics, ILogger<OtlpExport> log) : IHostedService, IDisposable
{
    private const int FlushMilliseconds = 3000;

    private readonly List<IDisposable> _providers = [];

    public Task StartAsync(CancellationToken cancellationToken)
    {
        if (Endpoint("METRICS") is { } forMetrics)
        {
            _providers.Add(Metrics(forMetrics, MetricReaderTemporalityPreference.Cumulative,
                CoordinatorMetrics.MeterName, TelemetryMeters.Http, TelemetryMeters.Runtime, TelemetryMeters.Engine, TelemetryMeters.Database));
            // Gauges have no temporality; but a reader of deltas forgets label sets that are gone, and one of sums keeps all that ever were.
            _providers.Add(Metrics(forMetrics, MetricReaderTemporalityPreference.Delta, CoordinatorMetrics.LiveMeterName));
            LogSends("metrics", forMetrics.Scheme, forMetrics.Host, forMetrics.Port);
        }
        if (Endpoint("TRACES") is { } forTraces)
        {
            _providers.Add(Sdk.CreateTracerProviderBuilder().ConfigureResource(Resource).AddSource(JobTelemetry.SourceName)
                .AddOtlpExporter(options => Configure(options, forTraces, "TRACES", "v1/traces")).Build());
            LogSends("traces", forTraces.Scheme, forTraces.Host, forTraces.Port);
        }
        metrics.Begin();
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken)
    {
        foreach (IDisposable provider in _providers)
        {
            // A collector that is away is not waited for.
            _ = provider is MeterProvider meters ? meters.ForceFlush(FlushMilliseconds) : ((TracerProvider)provider).ForceFlush(FlushMilliseconds);
        }
        return Task.CompletedTask;
    }

    public void Dispose() => _providers.ForEach(provider => provider.Dispose());

    private static MeterProvider Metrics(Uri endpoint, MetricReaderTemporalityPreference temporality, params string[] meters) =>
        Sdk.CreateMeterProviderBuilder().ConfigureResource(Resource).AddMeter(meters)
            // As Prometheus is told.
            .AddView(instrument => TelemetryMeters.Includes(instrument) ? null : MetricStreamConfiguration.Drop)
            .SetMaxMetricStreams(200)
            .AddOtlpExporter((options, reader) =>
            {
                Configure(options, endpoint, "METRICS", "v1/metrics");
                if (temporality is MetricReaderTemporalityPreference.Delta)
                {
                    reader.TemporalityPreference = temporality;
                }
            })
            .Build();

    /// <summary>OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before.</summary>
    private static void Resource(ResourceBuilder resource) => resource.Clear()
        .AddService("trainer", serviceVersion: typeof(OtlpExport).Assembly.GetName().Version!.ToString(3), serviceInstanceId: Environment.MachineName)
        .AddTelemetrySdk().AddEnvironmentVariableDetector();

    private static void Configure(OtlpExporterOptions options, Uri endpoint, string signal, string path)
    {
        string? protocol = Variable($"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") ?? Variable("OTEL_EXPORTER_OTLP_PROTOCOL");
        options.Protocol = protocol is "http/protobuf" || (protocol is null && endpoint.Port == 4318) ? OtlpExportProtocol.HttpProtobuf : OtlpExportProtocol.Grpc;
        // An endpoint of one signal is whole; of the other kind HTTP needs the signal's path.
        options.Endpoint = options.Protocol is OtlpExportProtocol.Grpc || Variable($"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") is not null
            ? endpoint
            : new Uri(endpoint.AbsoluteUri.TrimEnd('/') + "/" + path);
        options.Headers = Variable($"OTEL_EXPORTER_OTLP_{signal}_HEADERS") ?? options.Headers;
    }

    /// <summary>Where a signal goes; null: nowhere.</summary>
    /// <exception cref="ConfigException">The variable names no address.</exception>
    private static Uri? Endpoint(string signal)
    {
        if (Variable("OTEL_SDK_DISABLED") is { } off && off.Equals("true", StringComparison.OrdinalIgnoreCase) || Variable($"OTEL_{signal}_EXPORTER") is not (null or "otlp"))
        {
            return null;
        }
        string name = $"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT";
        if (Variable(name) is null)
        {
            name = "OTEL_EXPORTER_OTLP_ENDPOINT";
        }
        return Variable(name) is not { } given ? null
            : Uri.TryCreate(given, UriKind.Absolute, out Uri? endpoint) && endpoint.Scheme is "http" or "https" ? endpoint
            : throw new ConfigException($"{name} is not an address; use http(s)://host:port");
    }

    private static string? Variable(string name) => Environment.GetEnvironmentVariable(name) is { Length: > 0 } given ? given : null;

    [LoggerMessage(Level = LogLevel.Information, Message = "OTLP: {Signal} go to {Scheme}://{Host}:{Port}")]
    private partial void LogSends(string signal, string scheme, string host, int port);
}
