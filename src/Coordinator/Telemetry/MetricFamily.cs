using System.Buffers;
using System.Diagnostics.Metrics;

namespace Trainer.Coordinator.Telemetry;

/// <summary>What one instrument has measured, by label set.</summary>
internal sealed class MetricFamily
{
    /// <summary>Of a histogram whose maker advised none.</summary>
    private static readonly double[] s_usualBounds = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];

    private readonly Lock _lock = new();
    private readonly Dictionary<KeyValuePair<string, object?>[], Series> _series = new(LabelSets.Comparer);
    private readonly Dictionary<KeyValuePair<string, object?>[], Series>.AlternateLookup<ReadOnlySpan<KeyValuePair<string, object?>>> _find;
    private readonly bool _adds;
    private readonly double[]? _bounds;

    /// <summary>Samples of an observed instrument: thousands that live for one collection are written at once.</summary>
    private readonly ArrayBufferWriter<byte>? _observed;
    private readonly PrometheusText? _text;

    public MetricFamily(Instrument instrument)
    {
        Type kind = instrument.GetType().GetGenericTypeDefinition();
        bool counter = kind == typeof(Counter<>) || kind == typeof(ObservableCounter<>);
        Name = PrometheusText.NameOf(instrument.Name, instrument.Unit, counter);
        Help = instrument.Description is { Length: > 0 } told ? told : $"{instrument.Name}, as {instrument.Meter.Name} measures it.";
        _bounds = kind == typeof(Histogram<>) ? (instrument as Histogram<double>)?.Advice?.HistogramBucketBoundaries?.ToArray() ?? s_usualBounds : null;
        Type = _bounds is not null ? "histogram" : counter ? "counter" : "gauge";
        _adds = kind != typeof(Gauge<>);
        _find = _series.GetAlternateLookup<ReadOnlySpan<KeyValuePair<string, object?>>>();
        if (instrument.IsObservable)
        {
            _observed = new ArrayBufferWriter<byte>();
            _text = new PrometheusText(_observed, openMetrics: false);
        }
    }

    /// <summary>As Prometheus spells it, without the "_total" of counters.</summary>
    public string Name { get; }

    public string Help { get; }

    /// <summary>counter, gauge or histogram.</summary>
    public string Type { get; }

    public void Record(double value, ReadOnlySpan<KeyValuePair<string, object?>> labels)
    {
        lock (_lock)
        {
            if (_text is not null)
            {
                Sample(_text, labels, value);
                return;
            }
            if (!_find.TryGetValue(labels, out Series? series))
            {
                _series.Add(labels.ToArray(), series = new Series(_bounds));
            }
            series.Record(value, _adds);
        }
    }

    /// <summary>Observed values are those of one collection: what is not observed any more is gone.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            _observed?.ResetWrittenCount();
        }
    }

    public void Write(PrometheusText text)
    {
        lock (_lock)
        {
            if (_series.Count == 0 && _observed is not { WrittenCount: > 0 })
            {
                return;
            }
            text.Begin(this);
            if (_observed is not null)
            {
                text.Append(_observed.WrittenSpan);
            }
            foreach ((KeyValuePair<string, object?>[] labels, Series series) in _series)
            {
                if (_bounds is null)
                {
                    Sample(text, labels, series.Value);
                }
                else
                {
                    series.Write(text, Name, labels, _bounds);
                }
            }
        }
    }

    private void Sample(PrometheusText text, ReadOnlySpan<KeyValuePair<string, object?>> labels, double value) =>
        text.Sample(Name, Type == "counter" ? "_total" : "", labels, value);

    private sealed class Series(double[]? bounds)
    {
        private readonly long[]? _buckets = bounds is null ? null : new long[bounds.Length + 1];

        public double Value { get; private set; }

        public void Record(double value, bool adds)
        {
            Value = adds ? Value + value : value;
            if (bounds is not null)
            {
                int at = Array.BinarySearch(bounds, value);
                _buckets![at < 0 ? ~at : at]++;
            }
        }

        public void Write(PrometheusText text, string name, KeyValuePair<string, object?>[] labels, double[] limits)
        {
            long count = 0;
            for (int i = 0; i < _buckets!.Length; i++)
            {
                count += _buckets[i];
                text.Sample(name, "_bucket", labels, count, i < limits.Length ? limits[i] : double.PositiveInfinity);
            }
            text.Sample(name, "_sum", labels, Value);
            text.Sample(name, "_count", labels, count);
        }
    }

    /// <summary>Finds a label set again without making an array of it.</summary>
    private sealed class LabelSets : IEqualityComparer<KeyValuePair<string, object?>[]>,
        IAlternateEqualityComparer<ReadOnlySpan<KeyValuePair<string, object?>>, KeyValuePair<string, object?>[]>
    {
        public static LabelSets Comparer { get; } = new();

        public bool Equals(KeyValuePair<string, object?>[]? a, KeyValuePair<string, object?>[]? b) => Equals(a.AsSpan(), b!);

        public bool Equals(ReadOnlySpan<KeyValuePair<string, object?>> a, KeyValuePair<string, object?>[] b)
        {
            if (a.Length != b.Length)
            {
                return false;
            }
            for (int i = 0; i < a.Length; i++)
            {
                if (a[i].Key != b[i].Key || !Equals(a[i].Value, b[i].Value))
                {
                    return false;
                }
            }
            return true;
        }

        public int GetHashCode(KeyValuePair<string, object?>[] labels) => GetHashCode(labels.AsSpan());

        public int GetHashCode(ReadOnlySpan<KeyValuePair<string, object?>> labels)
        {
            var hash = new HashCode();
            foreach ((string key, object? value) in labels)
            {
                hash.Add(key);
                hash.Add(value);
            }
            return hash.ToHashCode();
        }

        public KeyValuePair<string, object?>[] Create(ReadOnlySpan<KeyValuePair<string, object?>> labels) => labels.ToArray();
    }
}
