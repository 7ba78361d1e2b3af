namespace Trainer.Worker.Checkpoints;

public static class CheckpointStore
{
    /// <summary>Opens a directory, or <c>azblob://CONTAINER/PREFIX</c>. Nothing is read, created or connected yet.</summary>
    /// <param name="address">Which of them, and where.</param>
    /// <param name="time">The clock of retries.</param>
    /// <param name="patience">How long a service may be away; that of a training when absent.</param>
    /// <param name="trouble"><inheritdoc cref="BlobStoreOptions.Trouble" path="/summary"/></param>
    /// <exception cref="JobInputException">The address has an unknown scheme, or the account is not configured.</exception>
    public static ICheckpointStore Open(string address, TimeProvider? time = null, TimeSpan? patience = null, Action<string?>? trouble = null)
    {
        if (address.StartsWith(BlobAddress.Scheme, StringComparison.Ordinal))
        {
            return BlobAddress.Parse(address).Open(Environment.GetEnvironmentVariable,
                new BlobStoreOptions { Time = time ?? TimeProvider.System, RetryBudget = patience ?? BlobStoreOptions.Training, Trouble = trouble });
        }

        return string.IsNullOrWhiteSpace(address) || address.Contains("://", StringComparison.Ordinal)
            ? throw new JobInputException($"checkpoint store '{address}': neither a directory nor {BlobAddress.Scheme}CONTAINER/PREFIX")
            : new DirectoryStore(address, time);
    }

    /// <summary>The whole content of a small file.</summary>
    /// <exception cref="FileNotFoundException">There is none.</exception>
    internal static async Task<byte[]> ReadAllAsync(this ICheckpointStore store, string path, CancellationToken cancellationToken)
    {
        await using Stream stream = await store.OpenReadAsync(path, cancellationToken);
        using MemoryStream content = new();
        await stream.CopyToAsync(content, cancellationToken);
        return content.ToArray();
    }
}
