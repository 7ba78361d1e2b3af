using System.Globalization;
using Trainer.Contracts;

namespace Trainer.Worker.Training;

/// <summary>What a rank tells the world: log lines on standard output, and the report that its heartbeats carry.</summary>
public sealed class RankReporter(int attempt, int rank, TimeProvider time)
{
    private RankReport _report = new() { Attempt = attempt, Rank = rank, Pid = Environment.ProcessId };
    private long _ticks;

    public RankReport Report => Volatile.Read(ref _report) with { Ticks = Interlocked.Read(ref _ticks) };

    /// <summary>Called on the training thread only.</summary>
    public void Update(Func<RankReport, RankReport> change) => Volatile.Write(ref _report, change(_report));

    public void Enter(RankPhase phase, string? message = null) => Update(report => report with { Phase = phase, Message = message });

    /// <summary>What comes now, such as "step 12: all-reduce of gradients".</summary>
    public void Begin(string activity) => Update(report => report with { Activity = activity });

    /// <summary>Something went forward: see <see cref="RankReport.Ticks"/>. Called on any thread.</summary>
    public void Tick() => Interlocked.Increment(ref _ticks);

    /// <summary>A line that a full disk does not take is lost, and nothing else.</summary>
    public void Log(string line)
    {
        try
        {
            Console.Out.WriteLine($"{time.GetUtcNow().ToString("yyyy-MM-dd HH:mm:ss.fff", CultureInfo.InvariantCulture)}Z {line}");
        }
        catch (IOException)
        {
            // The training is worth more than its log.
        }
    }
}
