namespace Trainer.Worker.Checkpoints;

public enum CheckpointState
{
    /// <summary>Every file is there with its length and hash.</summary>
    Good,

    /// <summary>A file or the manifest does not fit; not marked yet.</summary>
    Damaged,

    /// <summary>Found damaged earlier and marked: never used, never deleted.</summary>
    Quarantined,

    /// <summary>Uploaded in part and never committed: ignored.</summary>
    Incomplete,
}

/// <summary>What was found at a step of a store.</summary>
/// <param name="Step">Optimizer steps done.</param>
/// <param name="State">Whether it can be used.</param>
/// <param name="Message">One sentence for a person, naming the store and the file; null when good.</param>
/// <param name="Manifest">Null when there is none or it cannot be read.</param>
/// <param name="Best">Has the lowest evaluation loss of the good ones.</param>
/// <param name="Damage">What is wrong, without the place; null when nothing is, or it was never committed.</param>
public sealed record CheckpointFinding(long Step, CheckpointState State, string? Message, CheckpointManifest? Manifest = null, bool Best = false, string? Damage = null);
