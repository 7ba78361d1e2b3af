using System.Globalization;

namespace Trainer.Benchmarks;

/// <summary>How long requests took. Added by many at once.</summary>
internal sealed class Latencies
{
    private readonly List<double> _milliseconds = [];
    private readonly Lock _gate = new();
    private int _told;

    public void Add(TimeSpan took)
    {
        lock (_gate)
        {
            _milliseconds.Add(took.TotalMilliseconds);
        }
    }

    public string Describe() => Describe(0);

    /// <summary>Those since the last time.</summary>
    public string DescribeNew() => Describe(_told);

    private string Describe(int from)
    {
        double[] sorted;
        lock (_gate)
        {
            sorted = [.. _milliseconds[from..]];
            _told = _milliseconds.Count;
        }
        Array.Sort(sorted);
        return sorted.Length == 0 ? "none" : string.Create(CultureInfo.InvariantCulture,
            $"{sorted.Length} reports, p50 {At(0.5):0.0} ms, p99 {At(0.99):0.0} ms, max {sorted[^1]:0} ms");

        double At(double share) => sorted[(int)((sorted.Length - 1) * share)];
    }
}
