using System.Text.Json;

namespace Trainer.Worker.Checkpoints;

/// <summary>The files of one step in a store, sorted by what they are.</summary>
internal sealed class CheckpointFolder
{
    private readonly HashSet<int> _quarantined = [];

    private CheckpointFolder(long step) => Step = step;

    public long Step { get; }

    /// <summary>Files of attempts: shards and attachments, committed or not.</summary>
    public List<(StoredFile File, int Attempt)> Files { get; } = [];

    /// <summary>The generation of the newest manifest; 0 when there is none.</summary>
    public int Generation { get; private set; }

    public bool HasManifest => Generation > 0;

    public bool HasQuarantine => _quarantined.Count > 0;

    /// <summary>The newest manifest is marked.</summary>
    public bool IsQuarantined => _quarantined.Contains(Generation);

    public string ManifestPath => CheckpointPath.Manifest(Step, Generation);

    public string QuarantinePath => CheckpointPath.Quarantine(Step, Generation);

    /// <summary>Where a checkpoint of this step is committed: past every quarantined generation. May be taken.</summary>
    public string NextManifestPath =>
        CheckpointPath.Manifest(Step, Math.Max(Generation, _quarantined.DefaultIfEmpty().Max() + 1));

    /// <summary>Every step in the store, newest first.</summary>
    public static async Task<IReadOnlyList<CheckpointFolder>> ListAsync(ICheckpointStore store, CancellationToken cancellationToken)
    {
        Dictionary<long, CheckpointFolder> folders = [];
        foreach (StoredFile file in await store.ListAsync(CheckpointPath.AllSteps, cancellationToken))
        {
            if (CheckpointPath.Parse(file.Path) is { } parts)
            {
                if (!folders.TryGetValue(parts.Step, out CheckpointFolder? folder))
                {
                    folders.Add(parts.Step, folder = new CheckpointFolder(parts.Step));
                }

                folder.Add(file, parts);
            }
        }

        return [.. folders.Values.OrderByDescending(folder => folder.Step)];
    }

    /// <summary>The newest manifest, or null when it is gone.</summary>
    /// <exception cref="InvalidDataException">It is damaged; the message names it.</exception>
    public async Task<CheckpointManifest?> ReadManifestAsync(ICheckpointStore store, CancellationToken cancellationToken)
    {
        try
        {
            CheckpointManifest manifest = CheckpointManifest.Parse(await store.ReadAllAsync(ManifestPath, cancellationToken));
            return manifest.Step == Step
                ? manifest
                : throw new InvalidDataException($"the manifest is of step {manifest.Step}, not of step {Step}");
        }
        catch (FileNotFoundException)
        {
            return null;
        }
        catch (InvalidDataException e)
        {
            throw new InvalidDataException($"{ManifestPath}: {e.Message}", e);
        }
    }

    /// <summary>What is damaged, as the quarantine marker says.</summary>
    public async Task<string> ReadReasonAsync(ICheckpointStore store, CancellationToken cancellationToken)
    {
        try
        {
            byte[] json = await store.ReadAllAsync(QuarantinePath, cancellationToken);
            return WithoutPlace(JsonSerializer.Deserialize(json, CheckpointJson.Default.QuarantineMarker)?.Reason ?? "no reason given");
        }
        catch (JsonException)
        {
            return $"{QuarantinePath} is not readable either";
        }
    }

    /// <summary>Markers of earlier builds say where the store was, too.</summary>
    private string WithoutPlace(string reason)
    {
        string place = $": step {Step} is damaged: ";
        int at = reason.IndexOf(place, StringComparison.Ordinal);
        return at < 0 ? reason : reason[(at + place.Length)..];
    }

    private void Add(StoredFile file, CheckpointPathParts parts)
    {
        if (parts.Attempt is { } attempt)
        {
            Files.Add((file, attempt));
        }
        else if (parts.IsQuarantine)
        {
            _quarantined.Add(parts.Generation!.Value);
        }
        else
        {
            Generation = Math.Max(Generation, parts.Generation!.Value);
        }
    }
}
