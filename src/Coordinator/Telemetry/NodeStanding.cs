namespace Trainer.Coordinator.Telemetry;

/// <summary>A node as it reported last.</summary>
/// <param name="Live">Slots on which a rank lives.</param>
/// <param name="Heard">Time stamp of the report.</param>
public sealed record NodeStanding(string Node, string Pool, int Slots, int Live, bool Draining, int Strikes, long Heard)
{
    public const int ManyStrikes = 3;

    /// <summary>Every value of <see cref="State"/>.</summary>
    public static IReadOnlyList<string> States { get; } = ["ready", "suspect", "draining", "drained", "unreachable", "lost"];

    /// <param name="silent">Since the report.</param>
    public string State(TimeSpan silent, CoordinatorOptions options) =>
        silent > options.NodeLease ? "lost" : silent > options.NodeSilence ? "unreachable"
        : Draining ? Live == 0 ? "drained" : "draining"
        : Strikes >= ManyStrikes ? "suspect" : "ready";
}
