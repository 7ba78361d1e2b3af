using Trainer.Contracts;

namespace Trainer.Coordinator.Telemetry;

/// <summary>Calls of one type of grain: all of them, and how long those of the last minute took.</summary>
internal sealed class GrainCalls(TimeProvider time)
{
    private const int Slices = 12;

    /// <summary>Each bound is a fourth root of 2 times the one before, from a microsecond on.</summary>
    private const int Bounds = 120;

    private static readonly TimeSpan s_slice = TimeSpan.FromSeconds(5);

    private readonly Lock _lock = new();
    private readonly Slice[] _slices = [.. Enumerable.Range(0, Slices).Select(_ => new Slice())];
    private readonly long _start = time.GetTimestamp();
    private long _calls;
    private long _errors;

    public void Add(TimeSpan took, bool failed)
    {
        lock (_lock)
        {
            _calls++;
            _errors += failed ? 1 : 0;
            Slice slice = Now();
            slice.Calls++;
            slice.Errors += failed ? 1 : 0;
            slice.Milliseconds += took.TotalMilliseconds;
            slice.Most = Math.Max(slice.Most, took.TotalMilliseconds);
            slice.Histogram[Bucket(took)]++;
        }
    }

    public GrainView View(string name)
    {
        lock (_lock)
        {
            long number = Number();
            Slice[] recent = [.. _slices.Where(slice => slice.Number > number - Slices && slice.Calls > 0)];
            long calls = recent.Sum(slice => slice.Calls);
            double seconds = Math.Clamp(time.GetElapsedTime(_start).TotalSeconds, 1, Slices * s_slice.TotalSeconds);
            return new GrainView
            {
                Grain = name,
                Calls = _calls,
                Errors = _errors,
                CallsPerSecond = calls / seconds,
                RecentErrors = recent.Sum(slice => slice.Errors),
                MeanMilliseconds = calls == 0 ? null : recent.Sum(slice => slice.Milliseconds) / calls,
                P99Milliseconds = calls == 0 ? null : Math.Min(Quantile(recent, 0.99), recent.Max(slice => slice.Most)),
                MaxMilliseconds = calls == 0 ? null : recent.Max(slice => slice.Most),
            };
        }
    }

    private Slice Now()
    {
        long number = Number();
        Slice slice = _slices[number % Slices];
        if (slice.Number != number)
        {
            slice.Restart(number);
        }
        return slice;
    }

    private long Number() => (long)(time.GetElapsedTime(_start) / s_slice) + 1;

    private static int Bucket(TimeSpan took) => Math.Clamp((int)Math.Ceiling(4 * Math.Log2(Math.Max(1, took.TotalMicroseconds))), 0, Bounds - 1);

    /// <summary>The bound under which so large a share of the calls took.</summary>
    private static double Quantile(Slice[] slices, double share)
    {
        long left = (long)Math.Ceiling(slices.Sum(slice => slice.Calls) * share);
        int bound = 0;
        while (bound < Bounds - 1 && (left -= slices.Sum(slice => slice.Histogram[bound])) > 0)
        {
            bound++;
        }
        return Math.Pow(2, bound / 4.0) / 1000;
    }

    private sealed class Slice
    {
        public long Number;
        public long Calls;
        public long Errors;
        public double Milliseconds;
        public double Most;
        public readonly int[] Histogram = new int[Bounds];

        public void Restart(long number)
        {
            (Number, Calls, Errors, Milliseconds, Most) = (number, 0, 0, 0, 0);
            Array.Clear(Histogram);
        }
    }
}
