using Orleans;

namespace Trainer.Contracts;

/// <summary>
/// The catalogue of a job's checkpoints. Its key is the job id. The store's manifests decide what is committed; this remembers it,
/// also of what is gone, and answers without the store.
/// </summary>
[Alias("trainer.checkpoints.v1")]
public interface ICheckpointsGrain : IGrainWithStringKey
{
    /// <summary>Takes in what an attempt says that the store holds. Said again, or late, changes nothing.</summary>
    /// <returns>False: refused, because a newer attempt has reported.</returns>
    [Alias("commit")]
    Task<bool> Commit(int attempt, CheckpointReport report);

    [Alias("get")]
    Task<CheckpointCatalogue> Get();

    /// <summary>Somebody has read all files of the checkpoint.</summary>
    /// <returns>Null: there is none of this step and attempt.</returns>
    [Alias("judge")]
    Task<CheckpointEntry?> Judge(int step, CheckpointVerdict verdict);
}
