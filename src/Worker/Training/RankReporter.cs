using System.Globalization;
using Trainer.Contracts;

namespace Trainer.Worker.Training;

/// <summary>What a rank tells the world: log lines on standard output, and the report that its heartbeats carry.</summary>
public sealed class RankReporter(int attempt, TimeProvider time)
{
    private RankReport _report = new() { Attempt = attempt, Pid = Environment.ProcessId };

    public RankReport Report => Volatile.Read(ref _report);

    /// <summary>Called on the training thread only.</summary>
    public void Update(Func<RankReport, RankReport> change) => Volatile.Write(ref _report, change(Report));

    public void Enter(RankPhase phase, string? message = null) => Update(report => report with { Phase = phase, Message = message });

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
