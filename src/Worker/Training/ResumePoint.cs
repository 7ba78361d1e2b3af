using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Distributed;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Training;

/// <summary>What an attempt goes on from: the newest good checkpoint of the job's own store, else of checkpoint.resume_from, else nothing.</summary>
/// <param name="Reader">Of the store where the checkpoint is.</param>
/// <param name="Manifest">The same on all ranks; null: the attempt starts from step 0.</param>
/// <param name="IsOwn">The checkpoint is in the job's own store.</param>
/// <param name="Setback">Which damaged checkpoints were passed over, as a sentence; null: none.</param>
internal sealed record ResumePoint(CheckpointReader Reader, CheckpointManifest? Manifest, bool IsOwn, string? Setback)
{
    /// <summary>Damaged checkpoints that one sentence names.</summary>
    private const int MostNamed = 3;

    /// <param name="log">Told of every checkpoint that was passed over, with the reason.</param>
    /// <exception cref="JobInputException">The newest checkpoint belongs to another training, or resume_from has none that is good.</exception>
    public static ResumePoint Find(
        JobConfig job, JobId id, TrainingFingerprint fingerprint, ICheckpointStore store, ICommunicator ranks, TimeProvider time, Action<string> log)
    {
        var refused = new SortedDictionary<long, string>(Comparer<long>.Create((one, other) => other.CompareTo(one)));
        CheckpointReader reader = Reader(store);
        CheckpointManifest? manifest = Newest(reader, id, fingerprint, ranks);
        bool isOwn = manifest is not null;
        if (manifest is null && job.Checkpoint.ResumeFrom is { } source)
        {
            reader = Reader(CheckpointStore.Open(source, time));
            manifest = Newest(reader, id, fingerprint, ranks)
                ?? throw new JobInputException($"checkpoint.resume_from: {source} has no good checkpoint; correct the address, or remove the key to start from step 0");
        }

        return new ResumePoint(reader, manifest, isOwn, refused.Count == 0 ? null
            : $"no use of damaged checkpoints: {string.Join("; ", refused.Take(MostNamed).Select(each => $"step {each.Key} ({each.Value})"))}"
                + $"{(refused.Count > MostNamed ? $"; and {refused.Count - MostNamed} more" : "")}; goes on from step {manifest?.Step ?? 0}");

        CheckpointReader Reader(ICheckpointStore source) => new(source, time, finding =>
        {
            log($"warning: {finding.Message}");
            if (finding is { State: CheckpointState.Quarantined, Damage: { } damage })
            {
                refused[finding.Step] = damage;
            }
        });
    }

    /// <summary>What rank 0 found: an attempt that was cut off may still commit while the ranks look.</summary>
    private static CheckpointManifest? Newest(CheckpointReader reader, JobId id, TrainingFingerprint fingerprint, ICommunicator ranks)
    {
        CheckpointManifest? found = Find(long.MaxValue);
        if (ranks.WorldSize == 1)
        {
            return found;
        }

        long own = found?.Step ?? -1;
        using DisposeScope scope = NewDisposeScope();
        Tensor step = tensor((long[])[own]);
        ranks.Broadcast(step, root: 0);
        long chosen = step.data<long>().ToArray()[0];
        return chosen == own ? found : Find(chosen);

        CheckpointManifest? Find(long newest) =>
            reader.FindNewestAsync(id.Value, fingerprint.Hash, CancellationToken.None, newest, fingerprint.Differences).GetAwaiter().GetResult();
    }
}
