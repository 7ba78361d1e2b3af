using Trainer.Worker.Checkpoints;

namespace Trainer.Worker.Tests.Checkpoints;

public sealed class CheckpointStoreTests
{
    [Theory]
    [InlineData("azblob://models", "models", "")]
    [InlineData("azblob://models/", "models", "")]
    [InlineData("azblob://models/team/job-1", "models", "team/job-1")]
    [InlineData("azblob://models/team/", "models", "team")]
    public void A_blob_address_is_a_container_and_a_prefix(string address, string container, string prefix) =>
        Assert.Equal(new BlobAddress(container, prefix), BlobAddress.Parse(address));

    [Theory]
    [InlineData("azblob://")]
    [InlineData("azblob://Models")]
    [InlineData("azblob://ab")]
    [InlineData("azblob://a--b")]
    [InlineData("azblob://models/../x")]
    [InlineData("azblob://models/a b")]
    [InlineData("s3://bucket/x")]
    [InlineData("")]
    [InlineData("  ")]
    public void A_bad_address_is_the_users_error(string address)
    {
        JobInputException error = Assert.Throws<JobInputException>(() => CheckpointStore.Open(address));
        Assert.Contains($"'{address}'", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_directory_is_a_store() =>
        Assert.Equal(Path.GetFullPath("some/where"), CheckpointStore.Open("some/where").Address);

    [Theory]
    [InlineData("UseDevelopmentStorage=true", null)]
    [InlineData("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=AAAA;EndpointSuffix=core.windows.net", null)]
    [InlineData("BlobEndpoint=https://a.blob.core.windows.net;SharedAccessSignature=sv=2020&sig=x", null)]
    [InlineData(null, "myaccount")]
    public void An_account_comes_from_the_environment(string? connection, string? account)
    {
        BlobStore store = new BlobAddress("models", "a").Open(Variables(connection, account), new BlobStoreOptions());
        Assert.Equal("azblob://models/a", store.Address);
    }

    [Theory]
    [InlineData(null, null, "AZURE_STORAGE_ACCOUNT")]
    [InlineData("nonsense", null, "AZURE_STORAGE_CONNECTION_STRING")]
    [InlineData("AccountName=a;AccountKey=%%%", null, "AZURE_STORAGE_CONNECTION_STRING")]
    [InlineData(null, "not/an.account", "not/an.account")]
    public void A_missing_or_wrong_account_names_the_variable(string? connection, string? account, string expected)
    {
        JobInputException error = Assert.Throws<JobInputException>(
            () => new BlobAddress("models", "a").Open(Variables(connection, account), new BlobStoreOptions()));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
    }

    private static Func<string, string?> Variables(string? connection, string? account) => name => name switch
    {
        "AZURE_STORAGE_CONNECTION_STRING" => connection,
        "AZURE_STORAGE_ACCOUNT" => account,
        _ => null,
    };
}
