using Azure;
using Azure.Storage.Blobs;
using Azure.Storage.Blobs.Models;
using Azure.Storage.Blobs.Specialized;

namespace Trainer.Worker.Checkpoints;

/// <summary>
/// A store in an Azure Blob container, which is created with the first file. Only staged blocks, block lists and ranged
/// downloads are used: the client's one-call uploads need an assembly that not every package feed has.
/// </summary>
public sealed class BlobStore : ICheckpointStore
{
    private const string CreatorKey = "creator";
    private readonly BlobContainerClient _container;
    private readonly string _prefix;
    private readonly BlobStoreOptions _options;
    private readonly BlobRequests _requests;

    internal BlobStore(BlobAddress address, BlobContainerClient container, BlobStoreOptions options)
    {
        Address = address.ToString();
        _container = container;
        _prefix = address.Prefix.Length == 0 ? "" : address.Prefix + "/";
        _options = options;
        _requests = new BlobRequests(Address, options);
    }

    public string Address { get; }

    public async Task<WrittenContent> WriteAsync(string path, Func<Stream, CancellationToken, Task> write, CancellationToken cancellationToken)
    {
        BlockBlobClient blob = Blob(path);
        await using BlobUpload upload = new(_container, blob, path, _requests, _options);
        await using HashingStream hashing = new(upload.WriteAsync);
        await write(hashing, cancellationToken);
        await upload.CommitAsync(conditions: null, metadata: null, cancellationToken);
        return hashing.Content();
    }

    public async Task<bool> TryCreateAsync(string path, ReadOnlyMemory<byte> content, CancellationToken cancellationToken)
    {
        BlockBlobClient blob = Blob(path);
        string creator = Guid.NewGuid().ToString("N");
        try
        {
            await using BlobUpload upload = new(_container, blob, path, _requests, _options);
            await upload.WriteAsync(content, cancellationToken);
            await upload.CommitAsync(
                new BlobRequestConditions { IfNoneMatch = ETag.All }, new Dictionary<string, string> { [CreatorKey] = creator }, cancellationToken);
            return true;
        }
        catch (StoreException e) when (e.InnerException is RequestFailedException { Status: 409 or 412 } or RequestFailedException { ErrorCode: "InvalidBlockList" })
        {
            // Taken. But the answer to an earlier attempt of ours may have been lost: then we are the one who took it.
            // (A block list is invalid when another creator's commit discarded our staged block.)
            return await ReadCreatorAsync(blob, path, cancellationToken) == creator;
        }
    }

    public async Task<Stream> OpenReadAsync(string path, CancellationToken cancellationToken)
    {
        BlockBlobClient blob = Blob(path);
        BlobProperties properties = await _requests.RunAsync(
            $"open {path}", async token => (await blob.GetPropertiesAsync(conditions: null, token)).Value, cancellationToken);
        return new BlobReadStream(blob, path, properties.ContentLength, properties.ETag, _requests, _options);
    }

    public async Task<IReadOnlyList<StoredFile>> ListAsync(string prefix, CancellationToken cancellationToken)
    {
        try
        {
            List<StoredFile> files = await _requests.RunAsync($"list {prefix}", async token =>
            {
                List<StoredFile> found = [];
                await foreach (BlobItem item in _container.GetBlobsAsync(prefix: _prefix + prefix, cancellationToken: token))
                {
                    found.Add(new StoredFile(item.Name[_prefix.Length..], item.Properties.ContentLength ?? 0));
                }

                return found;
            }, cancellationToken);
            files.Sort((a, b) => string.CompareOrdinal(a.Path, b.Path));
            return files;
        }
        catch (FileNotFoundException)
        {
            // No container yet, so no files.
            return [];
        }
    }

    public Task DeleteAsync(string path, CancellationToken cancellationToken)
    {
        BlockBlobClient blob = Blob(path);
        return _requests.RunAsync(
            $"delete {path}", token => blob.DeleteIfExistsAsync(DeleteSnapshotsOption.IncludeSnapshots, conditions: null, token), cancellationToken);
    }

    private BlockBlobClient Blob(string path) => _container.GetBlockBlobClient(_prefix + StorePath.Require(path));

    private async Task<string?> ReadCreatorAsync(BlockBlobClient blob, string path, CancellationToken cancellationToken)
    {
        BlobProperties properties = await _requests.RunAsync(
            $"read {path}", async token => (await blob.GetPropertiesAsync(conditions: null, token)).Value, cancellationToken);
        return properties.Metadata.TryGetValue(CreatorKey, out string? creator) ? creator : null;
    }
}
