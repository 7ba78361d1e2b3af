using Trainer.Worker.Checkpoints;

namespace Trainer.Worker.Tests.Checkpoints;

public sealed class SnapshotWeightsTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    [Theory]
    [InlineData("model")]
    [InlineData("adapter_model")]
    public async Task A_single_file_is_read(string stem)
    {
        await WriteAsync($"{stem}.safetensors", "a", "b");
        using SnapshotWeights weights = SnapshotWeights.Open(_directory.Path, stem);
        Assert.Equal(["a", "b"], weights.Names.Order());
        Assert.Equal(Content("b"), Read(weights, "b"));
        Assert.False(weights.Contains("c"));
    }

    [Fact]
    public async Task Shards_are_read_through_their_index()
    {
        await WriteAsync("model-00001-of-00002.safetensors", "a", "b");
        await WriteAsync("model-00002-of-00002.safetensors", "c");
        WriteIndex("""{"a":"model-00001-of-00002.safetensors","b":"model-00001-of-00002.safetensors","c":"model-00002-of-00002.safetensors"}""");

        using SnapshotWeights weights = SnapshotWeights.Open(_directory.Path);
        foreach (string name in new[] { "a", "b", "c" })
        {
            Assert.Equal(Content(name), Read(weights, name));
            Assert.Equal([3L], weights.Entry(name).Shape);
        }

        Assert.EndsWith("model-00002-of-00002.safetensors", weights.FileOf("c"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_tensor_that_is_not_there_is_named()
    {
        await WriteAsync("model.safetensors", "a");
        using SnapshotWeights weights = SnapshotWeights.Open(_directory.Path);
        Assert.Contains("'lm_head.weight'", Assert.Throws<JobInputException>(() => weights.Entry("lm_head.weight")).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("1 of its 2 shards are missing", """{"a":"x.safetensors","z":"y.safetensors"}""")]
    [InlineData("tensor 'z' is not in", """{"a":"x.safetensors","z":"x.safetensors"}""")]
    [InlineData("weight_map names it twice", """{"a":"x.safetensors","a":"x.safetensors"}""")]
    [InlineData("\"../x.safetensors\" is not the name of a file", """{"a":"../x.safetensors"}""")]
    [InlineData("tensor 'a': 7 is not the name", """{"a":7}""")]
    [InlineData("no weight_map object", "[]")]
    [InlineData("not valid JSON", "{")]
    public async Task A_bad_index_is_the_users_error(string expected, string map)
    {
        await WriteAsync("x.safetensors", "a");
        WriteIndex(map);
        JobInputException error = Assert.Throws<JobInputException>(() => SnapshotWeights.Open(_directory.Path));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.Contains("model.safetensors.index.json", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_directory_without_weights_says_what_was_looked_for()
    {
        Assert.Contains("neither model.safetensors", OpenError(_directory.Path), StringComparison.Ordinal);
        File.WriteAllText(_directory.File("pytorch_model.bin"), "");
        Assert.Contains("pickled", OpenError(_directory.Path), StringComparison.Ordinal);
        Assert.Contains("no such directory", OpenError(_directory.File("nowhere")), StringComparison.Ordinal);
    }

    public void Dispose() => _directory.Dispose();

    private static string OpenError(string directory) => Assert.Throws<JobInputException>(() => SnapshotWeights.Open(directory)).Message;

    private static byte[] Content(string name) => [.. Enumerable.Range(0, 12).Select(i => (byte)(name[0] + i))];

    private static byte[] Read(SnapshotWeights weights, string name)
    {
        using NativeBuffer buffer = NativeBuffer.Allocate(weights.Entry(name).Length);
        weights.Read(name, buffer.Pointer, buffer.Length);
        return buffer.AsSpan(0, (int)buffer.Length).ToArray();
    }

    private async Task WriteAsync(string file, params string[] names)
    {
        await using FileStream stream = File.Create(_directory.File(file));
        SafetensorsWriter writer = await SafetensorsWriter.StartAsync(
            stream, [.. names.Select(name => new TensorSpec(name, TensorDType.F32, [3]))], null, default);
        foreach (string name in names)
        {
            await writer.WriteAsync(name, Content(name), default);
        }

        writer.Complete();
    }

    private void WriteIndex(string map) => File.WriteAllText(
        _directory.File("model.safetensors.index.json"), map[0] == '{' ? $$"""{"metadata":{"total_size":1},"weight_map":{{map}}}""" : map);
}
