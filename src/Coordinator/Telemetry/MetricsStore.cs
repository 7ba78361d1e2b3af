using System.Buffers;
using System.Diagnostics.Metrics;

namespace Trainer.Coordinator.Telemetry;

/// <summary>
/// What the coordinator's instruments have measured since it started, ready for Prometheus. Why it is ours:
/// docs/adr/0007-telemetry.md.
/// </summary>
internal sealed class MetricsStore : IDisposable
{
    private readonly IMeterFactory _meters;
    private readonly MeterListener _listener = new();
    private readonly SortedDictionary<string, MetricFamily> _families = new(StringComparer.Ordinal);
    private readonly Lock _collecting = new();

    public MetricsStore(IMeterFactory meters)
    {
        _meters = meters;
        _listener.InstrumentPublished = Listen;
        _listener.SetMeasurementEventCallback<double>(static (_, value, labels, family) => ((MetricFamily)family!).Record(value, labels));
        _listener.SetMeasurementEventCallback<float>(static (_, value, labels, family) => ((MetricFamily)family!).Record(value, labels));
        _listener.SetMeasurementEventCallback<long>(static (_, value, labels, family) => ((MetricFamily)family!).Record(value, labels));
        _listener.SetMeasurementEventCallback<int>(static (_, value, labels, family) => ((MetricFamily)family!).Record(value, labels));
        _listener.Start();
    }

    public void Write(IBufferWriter<byte> output, bool openMetrics)
    {
        // Two scrapes at once would mix what they observe.
        lock (_collecting)
        {
            MetricFamily[] families;
            lock (_families)
            {
                families = [.. _families.Values];
            }
            Array.ForEach(families, family => family.Clear());
            _listener.RecordObservableInstruments();
            var text = new PrometheusText(output, openMetrics);
            Array.ForEach(families, family => family.Write(text));
            text.End();
        }
    }

    public void Dispose() => _listener.Dispose();

    private void Listen(Instrument instrument, MeterListener listener)
    {
        if (instrument.Meter.Scope is { } scope && !ReferenceEquals(scope, _meters))
        {
            // Another coordinator's of this process.
            return;
        }
        if (!TelemetryMeters.Includes(instrument))
        {
            return;
        }
        var family = new MetricFamily(instrument);
        lock (_families)
        {
            if (_families.TryAdd(family.Name, family))
            {
                listener.EnableMeasurementEvents(instrument, family);
            }
        }
    }
}
