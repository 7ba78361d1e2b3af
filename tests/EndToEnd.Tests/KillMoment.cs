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
    /// Drawn with a fixed seed; every victim is among any six in a row. TRAINER_KILL_MOMENTS=N takes the first N (at least 6);
    /// all 20 by default.
    /// </summary>
    public static IReadOnlyList<KillMoment> Chosen { get; } =
        [.. Draw().Take(int.TryParse(Environment.GetEnvironmentVariable("TRAINER_KILL_MOMENTS"), out int count) ? Math.Max(6, count) : 20)];

    public override string ToString() =>
        $"{Number:D2} {Victim.ToString().ToLowerInvariant()} " + (Phase is null ? $"{Delay} ms after step {Step}" : $"at {Phase} of step {Step}");

    private static IEnumerable<KillMoment> Draw()
    {
        var random = new Random(Seed);
        for (int number = 1; number <= 20; number++)
        {
            Victim victim = (number % 6) switch { 2 or 5 => Victim.Coordinator, 0 or 4 => Victim.Both, _ => Victim.Rank };
            bool outside = victim is Victim.Coordinator || random.Next(3) == 0;
            int save = random.Next(1, TinyJob.Steps / TinyJob.CheckpointEvery + 1) * TinyJob.CheckpointEvery;
            int step = random.Next(1, TinyJob.Steps);
            string phase = random.Next(9) switch { 0 => "Step", 1 => "Export", _ => s_savePhases[random.Next(s_savePhases.Length)] };
            int at = phase switch { "Step" => step, "Export" => TinyJob.Steps, "Retention" => Math.Max(save, 20), _ => save };
            yield return outside
                ? new KillMoment(number, victim, null, step, random.Next(150))
                : new KillMoment(number, victim, phase, at, 0);
        }
    }
}
