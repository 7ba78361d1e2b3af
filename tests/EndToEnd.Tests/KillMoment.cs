namespace Trainer.EndToEnd.Tests;

public enum Victim { Rank, Coordinator, Both }

/// <summary>When whom SIGKILL meets.</summary>
/// <param name="Phase">Where in its code the rank kills itself; null: from outside, at a time.</param>
/// <param name="Step">Of the phase, or that must have been reported before a kill from outside.</param>
/// <param name="Delay">Milliseconds after that.</param>
public sealed record KillMoment(int Number, Victim Victim, string? Phase, int Step, int Delay)
{
    private const int Seed = 20250;

    private static readonly string[] s_savePhases =
        ["Snapshot", "BeforeShard", "MidShard", "AfterShards", "BeforeManifest", "AfterManifest", "Retention"];

    /// <summary>
    /// Drawn with a fixed seed; every victim is among any six in a row, every phase among the 20. TRAINER_KILL_MOMENTS=20
    /// runs them all; the first 6 by default, never fewer than 6.
    /// </summary>
    public static IReadOnlyList<KillMoment> Chosen { get; } =
        [.. Draw().Take(int.TryParse(Environment.GetEnvironmentVariable("TRAINER_KILL_MOMENTS"), out int count) ? Math.Max(6, count) : 6)];

    public override string ToString() =>
        $"{Number:D2} {Victim.ToString().ToLowerInvariant()} " + (Phase is null ? $"{Delay} ms after step {Step}" : $"at {Phase} of step {Step}");

    private static IEnumerable<KillMoment> Draw()
    {
        var random = new Random(Seed);
        // Of the 13 moments that meet the rank, null: from outside.
        string?[] phases = [.. s_savePhases, "Step", "Export", null, null, null, null];
        random.Shuffle(phases);
        var rest = new Queue<string?>(phases);
        for (int number = 1; number <= 20; number++)
        {
            Victim victim = (number % 6) switch { 2 or 5 => Victim.Coordinator, 0 or 4 => Victim.Both, _ => Victim.Rank };
            string? phase = victim is Victim.Coordinator ? null : rest.Dequeue();
            int step = random.Next(1, TinyJob.Steps);
            int save = random.Next(phase is "Retention" ? 4 : 1, TinyJob.Steps / TinyJob.CheckpointEvery + 1) * TinyJob.CheckpointEvery;
            int delay = random.Next(150);
            yield return phase switch
            {
                null => new KillMoment(number, victim, null, step, delay),
                "Step" => new KillMoment(number, victim, phase, step, 0),
                "Export" => new KillMoment(number, victim, phase, TinyJob.Steps, 0),
                _ => new KillMoment(number, victim, phase, save, 0),
            };
        }
    }
}
