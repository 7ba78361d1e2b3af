namespace Trainer.Coordinator;

/// <summary>What the coordinator, which knows no stores, needs of one: small files, whole, by their paths in it.</summary>
/// <param name="WriteAsync">Writes or replaces a file.</param>
/// <param name="ReadAsync">The content of a file.</param>
/// <param name="DeleteAsync">Removes a file; none there is no error.</param>
public sealed record LogStore(
    Func<string, ReadOnlyMemory<byte>, CancellationToken, Task> WriteAsync,
    Func<string, CancellationToken, Task<byte[]>> ReadAsync,
    Func<string, CancellationToken, Task> DeleteAsync);
