namespace Trainer.Worker.Training;

/// <summary>Which rank this process is, of what, and whom it reports to.</summary>
/// <param name="Socket">The Unix socket of whoever takes its heartbeats.</param>
/// <param name="Rank">From 0.</param>
/// <param name="Host">The address under which the other ranks reach this one.</param>
/// <param name="Threads">What it has of the machine's processors, unless its job says otherwise.</param>
public sealed record RankPlace(string JobDirectory, int Attempt, string Socket, int Rank, int WorldSize, string Host, int Threads)
{
    public override string ToString() => $"rank {Rank} of {WorldSize}";
}
