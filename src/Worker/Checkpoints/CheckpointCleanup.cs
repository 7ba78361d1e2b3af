namespace Trainer.Worker.Checkpoints;

/// <summary>
/// After a commit: removes the checkpoints that retention lets go, and what older attempts of this job uploaded without
/// committing. Quarantined checkpoints stay, for a person to look at.
/// </summary>
internal sealed class CheckpointCleanup(ICheckpointStore store, CheckpointAuthor author, CheckpointWriterOptions options)
{
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        IReadOnlyList<CheckpointFolder> folders = await CheckpointFolder.ListAsync(store, cancellationToken);
        Dictionary<CheckpointManifest, CheckpointFolder> committed = [];
        bool shared = false;
        foreach (CheckpointFolder folder in folders.Where(f => f.HasManifest && !f.IsQuarantined))
        {
            if (await TryReadAsync(folder, cancellationToken) is { } manifest)
            {
                shared |= manifest.Fingerprint != author.Fingerprint;
                committed.Add(manifest, folder);
            }
        }

        CheckpointManifest[] ours = [.. committed.Keys.Where(manifest => manifest.Fingerprint == author.Fingerprint)];
        foreach (CheckpointManifest manifest in Retention.Expired(ours, options.Keep))
        {
            await RemoveAsync(committed[manifest], manifest, cancellationToken);
        }

        // Files without a manifest do not tell whose they are: with another job's checkpoints around they stay.
        if (!shared)
        {
            HashSet<string> used = [.. ours.SelectMany(manifest => manifest.Files).Select(file => file.Path)];
            HashSet<CheckpointFolder> readable = [.. committed.Values];
            foreach (CheckpointFolder folder in folders.Where(f => !f.HasQuarantine && (!f.HasManifest || readable.Contains(f))))
            {
                await RemoveLeftoversAsync(folder, used, cancellationToken);
            }
        }
    }

    // The manifest goes first: at no moment does one name a file that is gone.
    private async Task RemoveAsync(CheckpointFolder folder, CheckpointManifest manifest, CancellationToken cancellationToken)
    {
        await store.DeleteAsync(folder.ManifestPath, cancellationToken);
        options.Removed?.Invoke(manifest);
        await (options.Phase?.Invoke(CheckpointPhase.Retention) ?? ValueTask.CompletedTask);
        foreach (CheckpointFile file in manifest.Files)
        {
            await store.DeleteAsync(file.Path, cancellationToken);
        }
    }

    private async Task RemoveLeftoversAsync(CheckpointFolder folder, HashSet<string> used, CancellationToken cancellationToken)
    {
        foreach ((StoredFile file, int attempt) in folder.Files)
        {
            if (attempt < author.Attempt && !used.Contains(file.Path))
            {
                await store.DeleteAsync(file.Path, cancellationToken);
            }
        }
    }

    // A damaged one is the reader's to quarantine; here it only counts as not ours to remove.
    private async Task<CheckpointManifest?> TryReadAsync(CheckpointFolder folder, CancellationToken cancellationToken)
    {
        try
        {
            return await folder.ReadManifestAsync(store, cancellationToken);
        }
        catch (InvalidDataException)
        {
            return null;
        }
    }
}
