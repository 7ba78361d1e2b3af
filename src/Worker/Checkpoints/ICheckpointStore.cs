namespace Trainer.Worker.Checkpoints;

/// <summary>A file in a store: its path and its length in bytes.</summary>
public readonly record struct StoredFile(string Path, long Length);

/// <summary>What was written: bytes, and SHA-256 as 64 lower-case hex digits.</summary>
public readonly record struct WrittenContent(long Length, string Sha256);

/// <summary>
/// Files by relative paths such as <c>step-00000120/attempt-2/rank-0.safetensors</c> (see <see cref="StorePath"/>). A file is
/// there whole or not at all, and survives a crash once a call returned. Calls may run in parallel.
/// </summary>
public interface ICheckpointStore
{
    /// <summary>What opens this store again with <see cref="CheckpointStore.Open"/>; names it in messages.</summary>
    string Address { get; }

    /// <summary>Writes or replaces a file. When <paramref name="write"/> throws, nothing has changed.</summary>
    /// <param name="path">Where.</param>
    /// <param name="write">Called once; writes the content, asynchronously only.</param>
    /// <param name="cancellationToken">Ends the call; nothing has changed then.</param>
    Task<WrittenContent> WriteAsync(string path, Func<Stream, CancellationToken, Task> write, CancellationToken cancellationToken);

    /// <summary>Writes a small file unless one is there: of any number of callers exactly one gets true.</summary>
    Task<bool> TryCreateAsync(string path, ReadOnlyMemory<byte> content, CancellationToken cancellationToken);

    /// <summary>A forward-only stream of the file as it was at the call.</summary>
    /// <exception cref="FileNotFoundException">There is none.</exception>
    Task<Stream> OpenReadAsync(string path, CancellationToken cancellationToken);

    /// <summary>The files whose path starts with <paramref name="prefix"/>, in ordinal order.</summary>
    Task<IReadOnlyList<StoredFile>> ListAsync(string prefix, CancellationToken cancellationToken);

    /// <summary>Removes a file; none there is no error.</summary>
    Task DeleteAsync(string path, CancellationToken cancellationToken);
}
