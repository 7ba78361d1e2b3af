namespace Trainer.Worker.Checkpoints;

/// <summary>Copies one checkpoint of a store into a folder, which is then a store itself. Every file is verified on its way.</summary>
public static class CheckpointCopy
{
    private const string WhichAreGood = "; \"trainer checkpoints verify JOB\" tells which ones are good";

    /// <param name="step">Null: the newest good one.</param>
    /// <param name="folder">Must not exist, or be empty; it is there whole or not at all.</param>
    /// <param name="passedOver">Hears why a newer one was not taken.</param>
    /// <exception cref="JobInputException">There is no such checkpoint, or the folder is not empty.</exception>
    /// <exception cref="InvalidDataException">A file of this step is not what was written.</exception>
    public static async Task<CheckpointManifest> WriteAsync(
        ICheckpointStore store, long? step, string folder, CancellationToken cancellationToken, Action<string>? passedOver = null)
    {
        if (step is not null)
        {
            (CheckpointFolder chosen, CheckpointManifest manifest) = await ChooseAsync(store, step, cancellationToken);
            return await WriteAsync(store, chosen, manifest, folder, cancellationToken);
        }

        CheckpointFolder[] committed = [.. (await CheckpointFolder.ListAsync(store, cancellationToken)).Where(found => found.HasManifest)];
        foreach (CheckpointFolder each in committed.Where(found => !found.IsQuarantined))
        {
            try
            {
                if (await each.ReadManifestAsync(store, cancellationToken) is { } manifest)
                {
                    return await WriteAsync(store, each, manifest, folder, cancellationToken);
                }
            }
            catch (InvalidDataException error)
            {
                passedOver?.Invoke(error.Message);
            }
        }

        throw None(store, null, committed);
    }

    private static async Task<CheckpointManifest> WriteAsync(
        ICheckpointStore store, CheckpointFolder chosen, CheckpointManifest manifest, string folder, CancellationToken cancellationToken)
    {
        await NewFolder.WriteAsync(folder, async temporary =>
        {
            foreach (CheckpointFile file in manifest.Files)
            {
                WrittenContent written = await CopyAsync(file, Path.Combine(temporary, file.Path));
                if (written != new WrittenContent(file.Length, file.Sha256))
                {
                    throw new InvalidDataException($"{store.Address}: step {manifest.Step} is damaged: {file.Path} has other content than was written{WhichAreGood}");
                }
            }

            await File.WriteAllBytesAsync(Path.Combine(temporary, CheckpointPath.Manifest(manifest.Step, 1)), manifest.ToBytes(), cancellationToken);
        });
        return manifest;

        async Task<WrittenContent> CopyAsync(CheckpointFile file, string path)
        {
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            try
            {
                await using Stream source = await store.OpenReadAsync(file.Path, cancellationToken);
                await using FileStream target = new(path, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, Options = FileOptions.Asynchronous });
                await using HashingStream hashing = new(target.WriteAsync);
                await source.CopyToAsync(hashing, cancellationToken);
                await target.FlushAsync(cancellationToken);
                target.Flush(flushToDisk: true);
                return hashing.Content();
            }
            catch (FileNotFoundException)
            {
                // A manifest goes before its files do.
                throw await chosen.ReadManifestAsync(store, cancellationToken) is null
                    ? (Exception)Gone(store, chosen)
                    : new InvalidDataException($"{store.Address}: step {manifest.Step} is damaged: {file.Path} is missing{WhichAreGood}");
            }
        }
    }

    /// <param name="step">Null: the newest that is not quarantined.</param>
    /// <exception cref="JobInputException">There is no such checkpoint.</exception>
    /// <exception cref="InvalidDataException">It is quarantined, or its manifest is damaged.</exception>
    internal static async Task<(CheckpointFolder Folder, CheckpointManifest Manifest)> ChooseAsync(ICheckpointStore store, long? step, CancellationToken cancellationToken)
    {
        CheckpointFolder[] committed = [.. (await CheckpointFolder.ListAsync(store, cancellationToken)).Where(found => found.HasManifest)];
        CheckpointFolder chosen = committed.FirstOrDefault(found => step is { } wanted ? found.Step == wanted : !found.IsQuarantined)
            ?? throw None(store, step, committed);
        if (chosen.IsQuarantined)
        {
            throw new InvalidDataException($"{store.Address}: step {chosen.Step} is quarantined, because it is damaged: "
                + $"{await chosen.ReadReasonAsync(store, cancellationToken)}; {CheckpointReader.CureOf(chosen)}");
        }

        return (chosen, await chosen.ReadManifestAsync(store, cancellationToken) ?? throw Gone(store, chosen));
    }

    private static JobInputException None(ICheckpointStore store, long? step, CheckpointFolder[] committed) =>
        new($"{store.Address}: no {(step is null ? "good " : "")}checkpoint{(step is null ? "" : $" of step {step}")}; there are "
            + (committed.Length == 0 ? "none" : "steps " + string.Join(", ", committed.Select(found => found.IsQuarantined ? $"{found.Step} (quarantined)" : $"{found.Step}"))));

    private static JobInputException Gone(ICheckpointStore store, CheckpointFolder chosen) =>
        new($"{store.Address}: retention removed step {chosen.Step} meanwhile; take a newer one");
}
