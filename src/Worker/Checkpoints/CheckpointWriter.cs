namespace Trainer.Worker.Checkpoints;

/// <summary>
/// Saves checkpoints in the background, one at a time: this rank's shard and attachments, then (rank 0) the manifest, then
/// what retention lets go. A save that failed fails every later call, so that training never runs on without checkpoints.
/// </summary>
public sealed class CheckpointWriter : IAsyncDisposable
{
    private readonly ICheckpointStore _store;
    private readonly CheckpointAuthor _author;
    private readonly CheckpointWriterOptions _options;
    private readonly CancellationTokenSource _disposed = new();
    private Task _saving = Task.CompletedTask;

    public CheckpointWriter(ICheckpointStore store, CheckpointAuthor author, CheckpointWriterOptions options)
    {
        if (author.WorldSize > 1 && options.Gather is null)
        {
            throw new ArgumentException("more than one rank needs a way to gather their files", nameof(options));
        }

        _store = store;
        _author = author;
        _options = options;
    }

    /// <summary>A save is under way: <see cref="BeginSaveAsync"/> would wait for it.</summary>
    public bool IsSaving => !_saving.IsCompleted;

    /// <summary>Waits for the save before, then starts this one. Takes the snapshot over, whatever happens.</summary>
    /// <exception cref="Exception">The failure of an earlier save; <see cref="AttemptReplacedException"/> when a newer attempt writes here.</exception>
    public async Task BeginSaveAsync(CheckpointSnapshot snapshot, CancellationToken cancellationToken)
    {
        try
        {
            await _saving.WaitAsync(cancellationToken);
        }
        catch
        {
            snapshot.Dispose();
            throw;
        }

        _saving = Task.Run(() => SaveAsync(snapshot, _disposed.Token), CancellationToken.None);
    }

    /// <summary>
    /// From now on every attempt before this one is refused, even when it is ahead and this one has nothing to save yet. Waits for
    /// the store.
    /// </summary>
    /// <param name="step">Where this attempt goes on.</param>
    public Task ClaimAsync(long step, CancellationToken cancellationToken) => _store.WriteAsync(
        CheckpointPath.Claim(step, _author.Attempt), async (stream, token) => await stream.WriteAsync("claimed\n"u8.ToArray(), token), cancellationToken);

    /// <summary>Throws the failure of a finished save; waits for nothing.</summary>
    public void ThrowIfFailed()
    {
        if (_saving.IsCompleted)
        {
            _saving.GetAwaiter().GetResult();
        }
    }

    /// <summary>Waits until the last save is committed, or throws its failure.</summary>
    public Task CompleteAsync() => _saving;

    /// <summary>Abandons a save under way; what it uploaded is a leftover for the next attempt to remove.</summary>
    public async ValueTask DisposeAsync()
    {
        await _disposed.CancelAsync();
        await _saving.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _disposed.Dispose();
    }

    private async Task SaveAsync(CheckpointSnapshot snapshot, CancellationToken cancellationToken)
    {
        using (snapshot)
        {
            // An attempt that died after its commit leaves a good checkpoint of the step: its files must not be touched.
            if (await FindCommittedAsync(snapshot.Step, cancellationToken) is { } committed)
            {
                _options.Committed?.Invoke(committed);
                return;
            }

            IReadOnlyList<CheckpointFile> files = await WriteFilesAsync(snapshot, cancellationToken);
            await EnterAsync(CheckpointPhase.AfterShards);
            if (_options.Gather is { } gather)
            {
                files = await gather(snapshot.Step, files, cancellationToken);
            }

            if (_author.Rank == 0)
            {
                CheckpointManifest manifest = Describe(snapshot, files);
                await CommitAsync(manifest, cancellationToken);
                await new CheckpointCleanup(_store, _author, _options).RunAsync(cancellationToken);
            }
        }
    }

    private async Task<CheckpointManifest?> FindCommittedAsync(long step, CancellationToken cancellationToken)
    {
        CheckpointFolder? folder = (await CheckpointFolder.ListAsync(_store, cancellationToken)).FirstOrDefault(f => f.Step == step);
        if (folder is not { HasManifest: true, IsQuarantined: false }
            || await folder.ReadManifestAsync(_store, cancellationToken) is not { } manifest)
        {
            return null;
        }

        if (manifest.Fingerprint != _author.Fingerprint)
        {
            throw CheckpointReader.OfAnotherJob(_store, manifest, _author.Job, _author.Fingerprint, []);
        }

        return manifest.Attempt <= _author.Attempt
            ? manifest
            : throw Replaced($"attempt {manifest.Attempt} committed step {step}");
    }

    private async Task<IReadOnlyList<CheckpointFile>> WriteFilesAsync(CheckpointSnapshot snapshot, CancellationToken cancellationToken)
    {
        List<CheckpointFile> files = [await WriteShardAsync(snapshot, cancellationToken)];
        foreach ((string name, ReadOnlyMemory<byte> content) in snapshot.Attachments)
        {
            string path = CheckpointPath.File(snapshot.Step, _author.Attempt, name);
            WrittenContent written = await _store.WriteAsync(
                path, async (stream, token) => await stream.WriteAsync(content, token), cancellationToken);
            files.Add(Describe(path, written, content.Length, CheckpointFileKind.Attachment));
        }

        return files;
    }

    private async Task<CheckpointFile> WriteShardAsync(CheckpointSnapshot snapshot, CancellationToken cancellationToken)
    {
        await EnterAsync(CheckpointPhase.BeforeShard);
        TensorSpec[] specs = [.. snapshot.Tensors.Select(tensor => tensor.Spec)];
        Dictionary<string, string> metadata = new()
        {
            ["job"] = _author.Job,
            ["rank"] = $"{_author.Rank}",
            ["step"] = $"{snapshot.Step}",
        };
        string path = CheckpointPath.File(snapshot.Step, _author.Attempt, CheckpointPath.Shard(_author.Rank));
        WrittenContent written = await _store.WriteAsync(path, async (stream, token) =>
        {
            SafetensorsWriter writer = await SafetensorsWriter.StartAsync(stream, specs, metadata, token, _options.Progress);
            for (int i = 0; i < specs.Length; i++)
            {
                if (i == specs.Length / 2)
                {
                    await EnterAsync(CheckpointPhase.MidShard);
                }

                await writer.WriteAsync(specs[i].Name, snapshot.Tensors[i].Data, token);
            }

            writer.Complete();
        }, cancellationToken);
        return Describe(path, written, SafetensorsWriter.FileLength(specs, metadata), CheckpointFileKind.Shard);
    }

    private CheckpointFile Describe(string path, WrittenContent written, long expectedLength, CheckpointFileKind kind) =>
        written.Length == expectedLength
            ? new CheckpointFile(path, written.Length, written.Sha256, kind)
            : throw new InvalidDataException($"{_store.Address}: {path}: {written.Length} bytes were written instead of {expectedLength}");

    private CheckpointManifest Describe(CheckpointSnapshot snapshot, IReadOnlyList<CheckpointFile> files) => new()
    {
        Job = _author.Job,
        Fingerprint = _author.Fingerprint,
        Step = snapshot.Step,
        Attempt = _author.Attempt,
        WorldSize = _author.WorldSize,
        Cursor = snapshot.Cursor,
        Seed = _author.Seed,
        Created = _options.Time.GetUtcNow(),
        EvaluationLoss = snapshot.EvaluationLoss,
        Files = files,
        Libraries = _author.Libraries,
        Config = _author.Config,
        Inputs = _author.Inputs,
    };

    private async Task CommitAsync(CheckpointManifest manifest, CancellationToken cancellationToken)
    {
        IReadOnlyList<CheckpointFolder> folders = await CheckpointFolder.ListAsync(_store, cancellationToken);
        RequireNotReplaced(folders);
        CheckpointFolder folder = folders.First(f => f.Step == manifest.Step);
        RequireStored(folder, manifest);

        await EnterAsync(CheckpointPhase.BeforeManifest);
        CheckpointManifest? committed = await _store.TryCreateAsync(folder.NextManifestPath, manifest.ToBytes(), cancellationToken)
            ? manifest
            : await FindCommittedAsync(manifest.Step, cancellationToken);
        await EnterAsync(CheckpointPhase.AfterManifest);
        _options.Committed?.Invoke(
            committed ?? throw new InvalidDataException($"{_store.Address}: {folder.NextManifestPath} appeared and went while it was committed"));
    }

    private void RequireNotReplaced(IReadOnlyList<CheckpointFolder> folders)
    {
        int newest = folders.SelectMany(folder => folder.Files).Max(file => file.Attempt);
        if (newest > _author.Attempt)
        {
            throw Replaced($"attempt {newest} writes to the store");
        }
    }

    private void RequireStored(CheckpointFolder folder, CheckpointManifest manifest)
    {
        Dictionary<string, long> stored = folder.Files.ToDictionary(file => file.File.Path, file => file.File.Length);
        foreach (CheckpointFile file in manifest.Files)
        {
            if (!stored.TryGetValue(file.Path, out long length) || length != file.Length)
            {
                throw new InvalidDataException(
                    $"{_store.Address}: {file.Path}: {file.Length} bytes were written, the store lists {(length > 0 ? length : "none")}");
            }
        }
    }

    private AttemptReplacedException Replaced(string how) =>
        new($"{_store.Address}: job '{_author.Job}', attempt {_author.Attempt}: {how}; this attempt has been replaced and must stop");

    private ValueTask EnterAsync(CheckpointPhase phase) => _options.Phase?.Invoke(phase) ?? ValueTask.CompletedTask;
}
