using System.Buffers;
using System.Security.Cryptography;
using System.Text.Json;

namespace Trainer.Worker.Checkpoints;

/// <summary>Finds the newest good checkpoint of a store and reads it. Nothing is believed before its hash was checked.</summary>
/// <param name="store">Where.</param>
/// <param name="time">Dates quarantine markers.</param>
/// <param name="report">Told of every checkpoint that was passed over, with the reason.</param>
public sealed class CheckpointReader(ICheckpointStore store, TimeProvider time, Action<CheckpointFinding>? report = null)
{
    private const int Chunk = 1 << 20;

    /// <summary>Digits of a hash that a person is shown.</summary>
    private const int HashShown = 12;

    /// <summary>
    /// The newest checkpoint whose every file is as it was written; null when there is none. A damaged newer one is marked as
    /// quarantined and reported, one that was never committed is reported.
    /// </summary>
    /// <param name="job">The name of the job that asks, for messages.</param>
    /// <param name="fingerprint">What the checkpoint must have been trained with.</param>
    /// <param name="cancellationToken">Ends the search.</param>
    /// <param name="newest">Newer steps are not looked at.</param>
    /// <param name="differences">What of the training that a manifest is of is not as it is in this one, as sentences.</param>
    /// <exception cref="JobInputException">The newest checkpoint belongs to another training.</exception>
    public async Task<CheckpointManifest?> FindNewestAsync(
        string job, string fingerprint, CancellationToken cancellationToken, long newest = long.MaxValue,
        Func<CheckpointManifest, IReadOnlyList<string>>? differences = null)
    {
        foreach (CheckpointFolder folder in (await CheckpointFolder.ListAsync(store, cancellationToken)).Where(folder => folder.Step <= newest))
        {
            CheckpointFinding? finding = await ExamineAsync(folder, manifest =>
            {
                if (manifest.Fingerprint != fingerprint)
                {
                    throw OfAnotherJob(store, manifest, job, fingerprint, differences?.Invoke(manifest) ?? []);
                }
            }, cancellationToken);
            if (finding is { State: CheckpointState.Good })
            {
                return finding.Manifest;
            }

            if (finding is { State: CheckpointState.Damaged })
            {
                finding = await QuarantineAsync(folder, finding, cancellationToken);
            }

            if (finding is not null)
            {
                report?.Invoke(finding);
            }
        }

        return null;
    }

    /// <summary>The highest attempt that wrote to the store, 0 when none did: a new writer needs a higher one.</summary>
    public async Task<int> NewestAttemptAsync(CancellationToken cancellationToken)
    {
        IReadOnlyList<CheckpointFolder> folders = await CheckpointFolder.ListAsync(store, cancellationToken);
        return folders.SelectMany(folder => folder.Files).Select(file => file.Attempt).DefaultIfEmpty().Max();
    }

    /// <summary>Why a job that was started before may have no good checkpoint here.</summary>
    public async Task<string> WhyNoneAsync(CancellationToken cancellationToken) => (await StepsAsync(cancellationToken)).Count > 0
        ? $"no checkpoint in {store.Address} is whole; what earlier attempts trained is trained again"
        : $"{store.Address} has no checkpoint; if an earlier attempt committed some on another machine, they stay there: set checkpoint.store to one that all machines reach";

    /// <summary>Every step of the store, newest first, each file read and hashed. Changes nothing.</summary>
    public async Task<IReadOnlyList<CheckpointFinding>> VerifyAsync(CancellationToken cancellationToken)
    {
        List<CheckpointFinding> findings = [];
        foreach (CheckpointFolder folder in await CheckpointFolder.ListAsync(store, cancellationToken))
        {
            if (await ExamineAsync(folder, _ => { }, cancellationToken) is { } finding)
            {
                findings.Add(finding);
            }
        }

        CheckpointManifest? best = Retention.Best(findings.Where(f => f.State == CheckpointState.Good).Select(f => f.Manifest!));
        return [.. findings.Select(finding => finding with { Best = best is not null && finding.Manifest == best })];
    }

    /// <summary>The steps of the store, newest first, whatever is in them.</summary>
    public async Task<IReadOnlyList<long>> StepsAsync(CancellationToken cancellationToken) =>
        [.. (await CheckpointFolder.ListAsync(store, cancellationToken)).Select(folder => folder.Step)];

    /// <summary>One step, each file read and hashed; when it is damaged it is marked as quarantined. Null: there is nothing of this step.</summary>
    public async Task<CheckpointFinding?> JudgeAsync(long step, CancellationToken cancellationToken)
    {
        CheckpointFolder? folder = (await CheckpointFolder.ListAsync(store, cancellationToken)).FirstOrDefault(folder => folder.Step == step);
        CheckpointFinding? finding = folder is null ? null : await ExamineAsync(folder, _ => { }, cancellationToken);
        return finding is { State: CheckpointState.Damaged } ? await QuarantineAsync(folder!, finding, cancellationToken) : finding;
    }

    /// <summary>The content of an attachment.</summary>
    /// <exception cref="InvalidDataException">It changed since it was found good.</exception>
    public async Task<byte[]> ReadAttachmentAsync(CheckpointFile file, CancellationToken cancellationToken)
    {
        byte[] content = await store.ReadAllAsync(file.Path, cancellationToken);
        return Convert.ToHexStringLower(SHA256.HashData(content)) == file.Sha256
            ? content
            : throw new InvalidDataException($"{store.Address}: {file.Path}: changed since it was verified");
    }

    /// <summary>Streams a shard into the caller's memory.</summary>
    /// <param name="file">One of the manifest's shards.</param>
    /// <param name="destination">Host memory of the entry's length to read it into; null skips the tensor.</param>
    /// <param name="cancellationToken">Ends the read.</param>
    /// <returns>The shard's tensors.</returns>
    /// <exception cref="InvalidDataException">It changed since it was found good; the memory holds anything then.</exception>
    public async Task<IReadOnlyList<TensorEntry>> ReadShardAsync(
        CheckpointFile file, Func<TensorEntry, NativeBuffer?> destination, CancellationToken cancellationToken)
    {
        await using Stream stream = await store.OpenReadAsync(file.Path, cancellationToken);
        return await new ShardStream(stream, file, $"{store.Address}/{file.Path}").ReadAsync(destination, cancellationToken);
    }

    internal static JobInputException OfAnotherJob(
        ICheckpointStore store, CheckpointManifest manifest, string job, string fingerprint, IReadOnlyList<string> differences)
    {
        string other = differences.Count > 0 ? string.Join(", ", differences) : "its data, model or settings are others";
        string fingerprints = $"(fingerprint {manifest.Fingerprint}, now {fingerprint})";
        return new JobInputException(manifest.Job == job
            ? $"{store.Address}: '{job}' is no longer the training that step {manifest.Step} was saved of: {other} {fingerprints}; put back what changed, or submit a new job"
            : $"{store.Address}: step {manifest.Step} is a checkpoint of job '{manifest.Job}', which '{job}' can't go on with: {other} {fingerprints}; train with the same, "
                + $"or start a new training: with a checkpoint.store of its own, without checkpoint.resume_from, and with the folder of 'trainer export {manifest.Job} --out FOLDER' as model.path to begin from its weights");
    }

    // Null: nothing was uploaded, or the checkpoint went away while we looked (retention of a running job).
    private async Task<CheckpointFinding?> ExamineAsync(CheckpointFolder folder, Action<CheckpointManifest> accept, CancellationToken cancellationToken)
    {
        if (!folder.HasManifest)
        {
            if (folder.Files.Count > 0 && folder.Files.TrueForAll(file => CheckpointPath.IsClaim(file.File.Path)))
            {
                return null;
            }

            string files = string.Join(", ", folder.Files.Select(file => file.File.Path));
            return new CheckpointFinding(folder.Step, CheckpointState.Incomplete,
                $"{store.Address}: step {folder.Step} was uploaded in part and never committed ({files}); ignored");
        }

        if (folder.IsQuarantined)
        {
            string damage = await folder.ReadReasonAsync(store, cancellationToken);
            return new CheckpointFinding(folder.Step, CheckpointState.Quarantined, QuarantinedMessage(folder, damage), Damage: damage);
        }

        CheckpointManifest? manifest = null;
        string? wrong;
        try
        {
            manifest = await folder.ReadManifestAsync(store, cancellationToken);
            if (manifest is null)
            {
                return null;
            }

            accept(manifest);
            wrong = await FindDamageAsync(manifest, cancellationToken);
            if (wrong is not null && await folder.ReadManifestAsync(store, cancellationToken) is null)
            {
                return null;
            }
        }
        catch (InvalidDataException e)
        {
            wrong = e.Message;
        }

        return wrong is null
            ? new CheckpointFinding(folder.Step, CheckpointState.Good, null, manifest)
            : new CheckpointFinding(folder.Step, CheckpointState.Damaged, $"{store.Address}: step {folder.Step} is damaged: {wrong}", manifest, Damage: wrong);
    }

    private async Task<string?> FindDamageAsync(CheckpointManifest manifest, CancellationToken cancellationToken)
    {
        foreach (CheckpointFile file in manifest.Files)
        {
            try
            {
                await using Stream stream = await store.OpenReadAsync(file.Path, cancellationToken);
                (long length, string sha256) = await HashAsync(stream, cancellationToken);
                if (length != file.Length)
                {
                    return $"{file.Path} has {length} bytes instead of {file.Length}";
                }

                if (sha256 != file.Sha256)
                {
                    return $"{file.Path} has other content than was written (SHA-256 {sha256[..HashShown]}... instead of {file.Sha256[..HashShown]}...)";
                }
            }
            catch (FileNotFoundException)
            {
                return $"{file.Path} is missing";
            }
        }

        return null;
    }

    private static async Task<WrittenContent> HashAsync(Stream stream, CancellationToken cancellationToken)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(Chunk);
        long length = 0;
        while (await stream.ReadAsync(buffer, cancellationToken) is > 0 and int count)
        {
            hash.AppendData(buffer, 0, count);
            length += count;
        }

        ArrayPool<byte>.Shared.Return(buffer);
        return new WrittenContent(length, Convert.ToHexStringLower(hash.GetHashAndReset()));
    }

    private async Task<CheckpointFinding> QuarantineAsync(CheckpointFolder folder, CheckpointFinding finding, CancellationToken cancellationToken)
    {
        QuarantineMarker marker = new(folder.Step, finding.Damage!, time.GetUtcNow());
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(marker, CheckpointJson.Default.QuarantineMarker);
        await store.TryCreateAsync(folder.QuarantinePath, json, cancellationToken);
        return finding with { State = CheckpointState.Quarantined, Message = QuarantinedMessage(folder, finding.Damage!) };
    }

    private string QuarantinedMessage(CheckpointFolder folder, string damage) =>
        $"{store.Address}: step {folder.Step} is quarantined, because it is damaged: {damage}; {CureOf(folder)}";

    /// <summary>What a person can do about a quarantined checkpoint.</summary>
    internal static string CureOf(CheckpointFolder folder) =>
        $"it is not used; to use it again, put the file back from a copy, remove {folder.QuarantinePath} and run \"trainer checkpoints verify JOB\"";
}
