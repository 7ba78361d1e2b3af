using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using Trainer.Contracts;

namespace Trainer.Coordinator.Telemetry;

/// <summary>
/// What the grains of this coordinator do, by type, with either engine: calls as <see cref="GrainCallMetrics"/> measures them,
/// activations as the engine's own meter counts them.
/// </summary>
public sealed class GrainStatistics : IDisposable
{
    private readonly IMeterFactory _meters;
    private readonly TimeProvider _time;
    private readonly MeterListener _listener = new();
    private readonly ConcurrentDictionary<string, GrainCalls> _calls = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, Tally> _activations = new(StringComparer.Ordinal);

    public GrainStatistics(IMeterFactory meters, TimeProvider time)
    {
        _meters = meters;
        _time = time;
        _listener.InstrumentPublished = Listen;
        _listener.SetMeasurementEventCallback<int>((_, change, tags, _) => Count(change, tags));
        _listener.SetMeasurementEventCallback<long>((_, change, tags, _) => Count(change, tags));
        _listener.SetMeasurementEventCallback<double>((_, seconds, tags, _) => Add(seconds, tags));
        _listener.Start();
    }

    /// <summary>By name.</summary>
    public GrainList List()
    {
        // Orleans names a type by its class or by its short name, as its version has it.
        Dictionary<string, int> activations = _activations.GroupBy(pair => GrainCallMetrics.ShortName(pair.Key), StringComparer.Ordinal)
            .ToDictionary(group => group.Key, group => group.Sum(pair => pair.Value.Value), StringComparer.Ordinal);
        return new GrainList
        {
            Grains = [.. activations.Keys.Union(_calls.Keys, StringComparer.Ordinal).Order(StringComparer.Ordinal)
                .Select(name => (_calls.GetValueOrDefault(name)?.View(name) ?? new GrainView { Grain = name }) with { Activations = Math.Max(0, activations.GetValueOrDefault(name)) })],
        };
    }

    public void Dispose() => _listener.Dispose();

    private void Listen(Instrument instrument, MeterListener listener)
    {
        bool calls = instrument.Name == CoordinatorMetrics.GrainCalls && ReferenceEquals(instrument.Meter.Scope, _meters);
        if (calls || (instrument.Meter.Name == TelemetryMeters.Engine && instrument.Name == TelemetryMeters.Activations))
        {
            listener.EnableMeasurementEvents(instrument);
        }
    }

    private void Add(double seconds, ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        // As CoordinatorMetrics.Called writes them: the grain, and the error of a call that failed.
        GrainCalls calls = _calls.GetOrAdd((string)tags[0].Value!, static (_, time) => new GrainCalls(time), _time);
        calls.Add(TimeSpan.FromSeconds(seconds), failed: tags.Length > 1);
    }

    private void Count(long change, ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        foreach ((string key, object? value) in tags)
        {
            if (key is "grain_type" or "type" && value?.ToString() is { } type)
            {
                Interlocked.Add(ref _activations.GetOrAdd(type, static _ => new Tally()).Value, (int)change);
            }
        }
    }

    private sealed class Tally
    {
        public int Value;
    }
}
