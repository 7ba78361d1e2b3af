namespace Trainer.Worker.Checkpoints;

/// <summary>
/// A store in a directory of a local or shared file system. A file is written under .tmp/, synced, and then renamed (or
/// linked, which fails when the name is taken) to its place, so readers and crashes never see a part of it.
/// </summary>
public sealed class DirectoryStore : ICheckpointStore
{
    private const string TemporaryFolder = ".tmp";
    private static readonly TimeSpan s_abandonedAfter = TimeSpan.FromMinutes(1);
    private readonly string _root;
    private readonly string _temporary;
    private readonly TimeProvider _time;
    private int _swept;

    /// <param name="directory">Created with the first file.</param>
    /// <param name="time">Tells abandoned temporary files by their age.</param>
    public DirectoryStore(string directory, TimeProvider? time = null)
    {
        _root = Path.GetFullPath(directory);
        _temporary = Path.Combine(_root, TemporaryFolder);
        _time = time ?? TimeProvider.System;
    }

    public string Address => _root;

    public async Task<WrittenContent> WriteAsync(string path, Func<Stream, CancellationToken, Task> write, CancellationToken cancellationToken)
    {
        string target = Locate(path);
        (_, WrittenContent content) = await WriteTemporaryAsync(write, temporary => Rename(temporary, target), target, cancellationToken);
        return content;
    }

    public async Task<bool> TryCreateAsync(string path, ReadOnlyMemory<byte> content, CancellationToken cancellationToken)
    {
        string target = Locate(path);
        (bool placed, _) = await WriteTemporaryAsync(
            async (stream, token) => await stream.WriteAsync(content, token),
            temporary => PosixFile.TryLink(temporary, target), target, cancellationToken);
        return placed;
    }

    public Task<Stream> OpenReadAsync(string path, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        string file = Locate(path);
        try
        {
            return Task.FromResult<Stream>(new FileStream(file, new FileStreamOptions
            {
                Share = FileShare.ReadWrite | FileShare.Delete,
                Options = FileOptions.Asynchronous | FileOptions.SequentialScan,
            }));
        }
        catch (DirectoryNotFoundException e)
        {
            throw new FileNotFoundException($"{file}: no such file", file, e);
        }
    }

    public Task<IReadOnlyList<StoredFile>> ListAsync(string prefix, CancellationToken cancellationToken)
    {
        List<StoredFile> files = [];
        if (Directory.Exists(_root))
        {
            foreach (FileInfo file in new DirectoryInfo(_root).EnumerateFiles("*", SearchOption.AllDirectories))
            {
                cancellationToken.ThrowIfCancellationRequested();
                string path = Path.GetRelativePath(_root, file.FullName).Replace(Path.DirectorySeparatorChar, '/');
                if (path.StartsWith(prefix, StringComparison.Ordinal) && StorePath.IsValid(path) && file.Exists)
                {
                    files.Add(new StoredFile(path, file.Length));
                }
            }
        }

        files.Sort((a, b) => string.CompareOrdinal(a.Path, b.Path));
        return Task.FromResult<IReadOnlyList<StoredFile>>(files);
    }

    public Task DeleteAsync(string path, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        string file = Locate(path);
        string directory = Path.GetDirectoryName(file)!;
        if (File.Exists(file))
        {
            File.Delete(file);
            PosixFile.SyncDirectory(directory);
            RemoveEmptyParents(directory);
        }

        return Task.CompletedTask;
    }

    private string Locate(string path) => Path.Combine(_root, StorePath.Require(path));

    private async Task<(bool Placed, WrittenContent Content)> WriteTemporaryAsync(
        Func<Stream, CancellationToken, Task> write, Func<string, bool> place, string target, CancellationToken cancellationToken)
    {
        CreateDirectory(_temporary);
        SweepOnce();
        string temporary = Path.Combine(_temporary, Guid.NewGuid().ToString("N"));
        try
        {
            // FileShare.None is an advisory lock for as long as we write: what SweepOnce leaves alone.
            await using FileStream file = new(temporary, new FileStreamOptions
            {
                Mode = FileMode.CreateNew,
                Access = FileAccess.Write,
                Share = FileShare.None,
                Options = FileOptions.Asynchronous,
                BufferSize = 1 << 16,
            });
            await using HashingStream hashing = new(file.WriteAsync);
            await write(hashing, cancellationToken);
            await file.FlushAsync(cancellationToken);
            file.Flush(flushToDisk: true);

            string directory = Path.GetDirectoryName(target)!;
            CreateDirectory(directory);
            bool placed = place(temporary);
            PosixFile.SyncDirectory(directory);
            return (placed, hashing.Content());
        }
        finally
        {
            File.Delete(temporary);
        }
    }

    private static bool Rename(string temporary, string target)
    {
        File.Move(temporary, target, overwrite: true);
        return true;
    }

    // A new directory is durable once its parent is synced.
    private static void CreateDirectory(string directory)
    {
        if (!Directory.Exists(directory))
        {
            string? parent = Path.GetDirectoryName(directory);
            if (parent is not null)
            {
                CreateDirectory(parent);
            }

            try
            {
                Directory.CreateDirectory(directory);
            }
            catch (IOException error)
            {
                throw new IOException($"the folder {directory} of the checkpoint store cannot be made: {error.Message}", error.HResult);
            }
            if (parent is not null)
            {
                PosixFile.SyncDirectory(parent);
            }
        }
    }

    // What a killed process left behind: old enough not to be between its creation and its lock, and locked by nobody.
    private void SweepOnce()
    {
        if (Interlocked.Exchange(ref _swept, 1) == 0)
        {
            DateTimeOffset limit = _time.GetUtcNow() - s_abandonedAfter;
            foreach (FileInfo file in new DirectoryInfo(_temporary).EnumerateFiles())
            {
                if (file.LastWriteTimeUtc < limit && !IsLocked(file.FullName))
                {
                    file.Delete();
                }
            }
        }
    }

    private static bool IsLocked(string file)
    {
        try
        {
            using FileStream attempt = new(file, FileMode.Open, FileAccess.ReadWrite, FileShare.None);
            return false;
        }
        catch (FileNotFoundException)
        {
            return false;
        }
        catch (IOException)
        {
            return true;
        }
    }

    private void RemoveEmptyParents(string directory)
    {
        while (directory != _root && !Directory.EnumerateFileSystemEntries(directory).Any())
        {
            try
            {
                Directory.Delete(directory);
            }
            catch (IOException)
            {
                // Someone put a file there in the meantime: it is not empty any more.
                return;
            }

            directory = Path.GetDirectoryName(directory)!;
        }
    }
}
