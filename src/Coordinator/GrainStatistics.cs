using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using System.Globalization;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>
/// What the grains of this coordinator do, by type, with either engine: calls as a filter sees them, activations as the engine's own
/// meter counts them.
/// </summary>
public sealed class GrainStatistics : IIncomingGrainCallFilter, IDisposable
{
    private const string EngineMeter = "Microsoft.Orleans";
    private const string Activations = "orleans-grains";

    private readonly TimeProvider _time;
    private readonly MeterListener _listener = new();
    private readonly ConcurrentDictionary<Type, GrainCalls> _calls = new();
    private readonly ConcurrentDictionary<string, StrongCount> _activations = new(StringComparer.Ordinal);

    public GrainStatistics(TimeProvider time)
    {
        _time = time;
        _listener.InstrumentPublished = (instrument, listener) =>
        {
            if (instrument.Meter.Name == EngineMeter && instrument.Name == Activations)
            {
                listener.EnableMeasurementEvents(instrument);
            }
        };
        _listener.SetMeasurementEventCallback<int>((_, change, tags, _) => Count(change, tags));
        _listener.SetMeasurementEventCallback<long>((_, change, tags, _) => Count(change, tags));
        _listener.Start();
    }

    public async Task Invoke(IIncomingGrainCallContext context)
    {
        GrainCalls calls = _calls.GetOrAdd(context.Grain.GetType(), static (_, time) => new GrainCalls(time), _time);
        long start = _time.GetTimestamp();
        bool failed = true;
        try
        {
            await context.Invoke();
            failed = false;
        }
        finally
        {
            calls.Add(_time.GetElapsedTime(start), failed);
        }
    }

    /// <summary>By name.</summary>
    public GrainList List()
    {
        // Orleans names a type by its class or by its short name, as its version has it.
        Dictionary<string, int> activations = _activations.GroupBy(pair => ShortName(pair.Key), StringComparer.Ordinal)
            .ToDictionary(group => group.Key, group => group.Sum(pair => pair.Value.Value), StringComparer.Ordinal);
        Dictionary<string, GrainCalls> calls = _calls.ToDictionary(pair => ShortName(pair.Key.Name), pair => pair.Value, StringComparer.Ordinal);
        return new GrainList
        {
            Grains = [.. activations.Keys.Union(calls.Keys, StringComparer.Ordinal).Order(StringComparer.Ordinal)
                .Select(name => (calls.GetValueOrDefault(name)?.View(name) ?? new GrainView { Grain = name }) with { Activations = Math.Max(0, activations.GetValueOrDefault(name)) })],
        };
    }

    public void Dispose() => _listener.Dispose();

    private void Count(long change, ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        foreach ((string key, object? value) in tags)
        {
            if (key is "grain_type" or "type" && value?.ToString() is { } type)
            {
                Interlocked.Add(ref _activations.GetOrAdd(type, static _ => new StrongCount()).Value, (int)change);
            }
        }
    }

    /// <summary>"job" of "Trainer.Coordinator.JobGrain,Trainer.Coordinator", of "JobGrain" and of "job".</summary>
    private static string ShortName(string type)
    {
        string name = type.Split(',')[0].Split('.')[^1].ToLower(CultureInfo.InvariantCulture);
        return name.EndsWith("grain", StringComparison.Ordinal) && name.Length > "grain".Length ? name[..^"grain".Length] : name;
    }

    private sealed class StrongCount
    {
        public int Value;
    }
}
