using Azure.Identity;
using Azure.Storage.Blobs;

namespace Trainer.Worker.Checkpoints;

/// <summary><c>azblob://CONTAINER/PREFIX</c>; the prefix may be empty.</summary>
public sealed record BlobAddress(string Container, string Prefix)
{
    public const string Scheme = "azblob://";

    /// <exception cref="JobInputException">The container or the prefix is not valid.</exception>
    public static BlobAddress Parse(string address)
    {
        string[] parts = address[Scheme.Length..].TrimEnd('/').Split('/', 2);
        if (!IsContainerName(parts[0]))
        {
            throw new JobInputException(
                $"checkpoint store '{address}': '{parts[0]}' is not a container name: 3 to 63 lower-case letters, digits and single '-'");
        }

        return parts.Length == 1 || StorePath.IsValid(parts[1])
            ? new BlobAddress(parts[0], parts.Length == 1 ? "" : parts[1])
            : throw new JobInputException($"checkpoint store '{address}': '{parts[1]}' is not a prefix: letters, digits, '-', '_', '.', joined by '/'");
    }

    /// <param name="environment">Reads AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCOUNT (then the machine's Azure identity).</param>
    /// <param name="options">Blocks, retries and time.</param>
    /// <exception cref="JobInputException">Neither is set, or what is set is not valid.</exception>
    public BlobStore Open(Func<string, string?> environment, BlobStoreOptions options)
    {
        // Retries are ours (BlobRequests): the client's own would multiply them.
        BlobClientOptions client = new() { Retry = { MaxRetries = 0, NetworkTimeout = options.AttemptTimeout } };
        if (options.Transport is { } transport)
        {
            client.Transport = transport;
        }

        return new BlobStore(this, Connect(environment, client).GetBlobContainerClient(Container), options);
    }

    public override string ToString() => Prefix.Length == 0 ? $"{Scheme}{Container}" : $"{Scheme}{Container}/{Prefix}";

    private BlobServiceClient Connect(Func<string, string?> environment, BlobClientOptions options)
    {
        if (environment("AZURE_STORAGE_CONNECTION_STRING") is { Length: > 0 } connection)
        {
            try
            {
                return new BlobServiceClient(connection, options);
            }
            catch (Exception e) when (e is FormatException or ArgumentException or InvalidOperationException)
            {
                throw new JobInputException($"checkpoint store '{this}': AZURE_STORAGE_CONNECTION_STRING is not a storage connection string: {e.Message}", e);
            }
        }

        if (environment("AZURE_STORAGE_ACCOUNT") is { Length: > 0 } account)
        {
            return account.Length is >= 3 and <= 24 && account.All(char.IsAsciiLetterOrDigit)
                ? new BlobServiceClient(new Uri($"https://{account}.blob.core.windows.net"), new DefaultAzureCredential(), options)
                : throw new JobInputException($"checkpoint store '{this}': AZURE_STORAGE_ACCOUNT '{account}' is not an account name: 3 to 24 letters and digits");
        }

        throw new JobInputException(
            $"checkpoint store '{this}': set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT to use this machine's Azure identity");
    }

    private static bool IsContainerName(string name) =>
        name.Length is >= 3 and <= 63
        && name.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c == '-')
        && name[0] != '-' && name[^1] != '-' && !name.Contains("--", StringComparison.Ordinal);
}
