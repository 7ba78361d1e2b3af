using System.Diagnostics;
using System.Globalization;

namespace Trainer.Worker.Training;

/// <summary>
/// For fault tests only: <c>TRAINER_TEST_KILL=PHASE@STEP@ATTEMPT[@RANK]</c> makes the rank (0 by default) kill itself with SIGKILL
/// when it reaches that phase of that step in that attempt. Phases: Step, Snapshot, those of CheckpointPhase, Export, Merge.
/// <c>TRAINER_TEST_PACE=SECONDS</c> is the least that a step takes, so that a small training outlives a fault on any machine.
/// </summary>
public sealed class FaultInjection
{
    private readonly (string Phase, long Step)? _kill;
    private readonly TimeSpan _pace;
    private long _stepped = Stopwatch.GetTimestamp();

    public FaultInjection(int attempt, int rank)
    {
        if (Environment.GetEnvironmentVariable("TRAINER_TEST_PACE") is { Length: > 0 } pace)
        {
            _pace = TimeSpan.FromSeconds(double.Parse(pace, CultureInfo.InvariantCulture));
        }
        if (Environment.GetEnvironmentVariable("TRAINER_TEST_KILL") is { Length: > 0 } spec)
        {
            string[] parts = spec.Split('@');
            if (int.Parse(parts[2], CultureInfo.InvariantCulture) == attempt
                && (parts.Length > 3 ? int.Parse(parts[3], CultureInfo.InvariantCulture) : 0) == rank)
            {
                _kill = (parts[0], long.Parse(parts[1], CultureInfo.InvariantCulture));
            }
        }
    }

    public void Reach(string phase, long step)
    {
        if (phase == "Step" && _pace > TimeSpan.Zero)
        {
            TimeSpan early = _pace - Stopwatch.GetElapsedTime(_stepped);
            Thread.Sleep(early > TimeSpan.Zero ? early : TimeSpan.Zero);
            _stepped = Stopwatch.GetTimestamp();
        }
        if (_kill is { } kill && kill.Phase == phase && kill.Step == step)
        {
            Process.GetCurrentProcess().Kill();
            Thread.Sleep(Timeout.Infinite);
        }
    }
}
