namespace Trainer.Worker.Checkpoints;

/// <summary>Which checkpoints may go.</summary>
public static class Retention
{
    /// <summary>Keeps the newest <paramref name="keep"/> and the <see cref="Best"/>; returns the others, oldest first.</summary>
    public static IReadOnlyList<CheckpointManifest> Expired(IReadOnlyCollection<CheckpointManifest> checkpoints, int keep)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(keep, 1);
        CheckpointManifest? best = Best(checkpoints);
        return [.. checkpoints.OrderByDescending(c => c.Step).Skip(keep).Where(c => c != best).Reverse()];
    }

    /// <summary>The lowest finite evaluation loss, the newer of equals; null when none was evaluated.</summary>
    public static CheckpointManifest? Best(IEnumerable<CheckpointManifest> checkpoints) => checkpoints
        .Where(c => c.EvaluationLoss is { } loss && double.IsFinite(loss))
        .OrderBy(c => c.EvaluationLoss)
        .ThenByDescending(c => c.Step)
        .FirstOrDefault();
}
