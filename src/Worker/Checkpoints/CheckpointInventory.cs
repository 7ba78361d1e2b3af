using Trainer.Contracts;

namespace Trainer.Worker.Checkpoints;

/// <summary>
/// What a store holds of one training, for the coordinator's catalogue: read once, then told of each change, by one caller at a
/// time. Anyone may read the report.
/// </summary>
public sealed class CheckpointInventory
{
    /// <summary>More than can be saved between two reports.</summary>
    private const int MostRemoved = 16;

    private readonly string _store;
    private readonly Dictionary<(int Step, int Attempt), HeldCheckpoint> _held = [];
    private readonly Queue<HeldCheckpoint> _removed = new();
    private volatile CheckpointReport _report;

    private CheckpointInventory(string store)
    {
        _store = store;
        _report = new CheckpointReport { Revision = 0, Store = store, Held = [] };
    }

    public CheckpointReport Report => _report;

    /// <param name="fingerprint">Of the training: others may have checkpoints in the same store.</param>
    /// <param name="verified">The checkpoint of this store whose every file was just read and found good, if any.</param>
    /// <param name="now">When that was.</param>
    public static async Task<CheckpointInventory> ReadAsync(
        ICheckpointStore store, string fingerprint, CheckpointManifest? verified, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var inventory = new CheckpointInventory(store.Address);
        List<CheckpointFolder> unreadable = [];
        bool shared = false;
        foreach (CheckpointFolder folder in (await CheckpointFolder.ListAsync(store, cancellationToken)).Where(folder => folder.HasManifest))
        {
            try
            {
                if (await folder.ReadManifestAsync(store, cancellationToken) is not { } manifest)
                {
                    continue;
                }

                shared |= manifest.Fingerprint != fingerprint;
                if (manifest.Fingerprint == fingerprint)
                {
                    inventory.Hold(Describe(manifest) with
                    {
                        Quarantined = folder.IsQuarantined ? await folder.ReadReasonAsync(store, cancellationToken) : null,
                        VerifiedAt = manifest.Step == verified?.Step && !folder.IsQuarantined ? now : null,
                    });
                }
            }
            catch (InvalidDataException)
            {
                unreadable.Add(folder);
            }
        }

        // A manifest that cannot be read does not tell whose it is. One that nobody has marked yet is the reader's to judge.
        foreach (CheckpointFolder folder in shared ? [] : unreadable.Where(folder => folder.IsQuarantined))
        {
            inventory.Hold(new HeldCheckpoint
            {
                Step = checked((int)folder.Step),
                Attempt = folder.Files.Select(file => file.Attempt).DefaultIfEmpty().Max(),
                Quarantined = await folder.ReadReasonAsync(store, cancellationToken),
            });
        }

        inventory.Publish();
        return inventory;
    }

    /// <summary>A checkpoint was committed, or found committed.</summary>
    public void Add(CheckpointManifest manifest)
    {
        HeldCheckpoint added = Describe(manifest);
        if (!_held.ContainsKey((added.Step, added.Attempt)))
        {
            Hold(added);
            Publish();
        }
    }

    /// <summary>Retention let it go.</summary>
    public void Remove(CheckpointManifest manifest)
    {
        if (_held.Remove((checked((int)manifest.Step), manifest.Attempt), out HeldCheckpoint? removed))
        {
            _removed.Enqueue(removed with { Removed = true });
            if (_removed.Count > MostRemoved)
            {
                _removed.Dequeue();
            }

            Publish();
        }
    }

    private static HeldCheckpoint Describe(CheckpointManifest manifest) => new()
    {
        Step = checked((int)manifest.Step),
        Attempt = manifest.Attempt,
        CommittedAt = manifest.Created,
        Bytes = manifest.Files.Sum(file => file.Length),
        Manifest = manifest.Checksum(),
        EvalLoss = manifest.EvaluationLoss is { } loss && double.IsFinite(loss) ? loss : null,
    };

    private void Hold(HeldCheckpoint checkpoint) => _held[(checkpoint.Step, checkpoint.Attempt)] = checkpoint;

    private void Publish()
    {
        HeldCheckpoint[] all = [.. _held.Values.OrderByDescending(held => held.Step).ThenByDescending(held => held.Attempt)];
        HeldCheckpoint[] named = all;
        int from = 0;
        int oldest = 0;
        if (all.Length > CheckpointReport.MostHeld)
        {
            // A step is named whole or left out.
            from = all[CheckpointReport.MostHeld].Step + 1;
            HeldCheckpoint? best = all.Where(held => held is { Quarantined: null, EvalLoss: not null }).MinBy(held => held.EvalLoss);
            named = [.. all.Where(held => held.Step >= from || held == best)];
            oldest = all.Where(held => held != best).Min(held => held.Step);
        }

        _report = new CheckpointReport { Revision = _report.Revision + 1, Store = _store, Held = [.. named, .. _removed], From = from, Oldest = oldest };
    }
}
