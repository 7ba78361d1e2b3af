using System.Formats.Tar;

namespace Trainer.Worker.Checkpoints;

/// <summary>One checkpoint as a tar archive, made while it is read. Unpacked it is a store, from which a job can continue.</summary>
public sealed class CheckpointArchive
{
    private readonly ICheckpointStore _store;
    private readonly CheckpointManifest _manifest;

    private CheckpointArchive(ICheckpointStore store, CheckpointManifest manifest) => (_store, _manifest) = (store, manifest);

    /// <exception cref="JobInputException">There is no such checkpoint.</exception>
    /// <exception cref="InvalidDataException">It is quarantined, or its manifest is damaged.</exception>
    public static async Task<CheckpointArchive> OpenAsync(ICheckpointStore store, long step, CancellationToken cancellationToken) =>
        new(store, (await CheckpointCopy.ChooseAsync(store, step, cancellationToken)).Manifest);

    /// <exception cref="InvalidDataException">A file is not what was written; what has been written of the archive is worth nothing.</exception>
    public async Task WriteAsync(Stream target, CancellationToken cancellationToken)
    {
        await using var tar = new TarWriter(target, TarEntryFormat.Pax, leaveOpen: true);
        foreach (CheckpointFile file in _manifest.Files)
        {
            await using var content = new VerifiedStream(await _store.OpenReadAsync(file.Path, cancellationToken), file);
            await AddAsync(file.Path, content);
        }

        using var manifest = new MemoryStream(_manifest.ToBytes());
        await AddAsync(CheckpointPath.Manifest(_manifest.Step, 1), manifest);

        Task AddAsync(string path, Stream content) =>
            tar.WriteEntryAsync(new PaxTarEntry(TarEntryType.RegularFile, path) { DataStream = content, ModificationTime = _manifest.Created }, cancellationToken);
    }
}
