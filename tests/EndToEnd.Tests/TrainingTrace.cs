using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Nodes;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;

namespace Trainer.EndToEnd.Tests;

/// <summary>
/// Everything that a training leaves behind and that must not depend on what disturbed it: each reported step, each sample,
/// the newest checkpoint (cursor, seed, every tensor) and the exported files, as name and value; long values as SHA-256.
/// </summary>
internal sealed class TrainingTrace
{
    private static readonly string[] s_reported = ["step", "loss", "eval_loss", "learning_rate", "grad_norm", "tokens"];

    private readonly SortedDictionary<string, string> _values = new(StringComparer.Ordinal);

    /// <param name="job">A job that has succeeded.</param>
    /// <param name="store">Its checkpoints, when they are not in its folder.</param>
    public static async Task<TrainingTrace> ReadAsync(JobFiles job, ICheckpointStore? store = null)
    {
        var trace = new TrainingTrace();
        trace.AddMetrics(job.Metrics);
        trace.AddSamples(job.Samples);
        await trace.AddCheckpointAsync(store ?? CheckpointStore.Open(job.Checkpoints));
        foreach (string file in Directory.EnumerateFiles(job.Model, "*", SearchOption.AllDirectories))
        {
            trace._values.Add($"export {Path.GetRelativePath(job.Model, file)}", Hash(await File.ReadAllBytesAsync(file)));
        }
        foreach (string leftover in Directory.EnumerateFileSystemEntries(job.Directory, "*.tmp"))
        {
            trace._values.Add($"left over {Path.GetFileName(leftover)}", "there");
        }
        return trace;
    }

    public IEnumerable<string> Names => _values.Keys;

    /// <summary>Fails with the names of what differs.</summary>
    public void AssertEqual(TrainingTrace other)
    {
        string[] different = [.. _values.Keys.Union(other._values.Keys)
            .Where(name => _values.GetValueOrDefault(name) != other._values.GetValueOrDefault(name))
            .Select(name => $"{name}: {_values.GetValueOrDefault(name) ?? "none"} instead of {other._values.GetValueOrDefault(name) ?? "none"}")];
        Assert.True(different.Length == 0, $"{different.Length} of {_values.Count} values differ:\n{string.Join('\n', different.Take(10))}");
    }

    /// <summary>Numbers as they are spelled: equal text is equal bits.</summary>
    private void AddMetrics(string path)
    {
        int number = 0;
        foreach (string line in File.ReadLines(path))
        {
            using JsonDocument record = JsonDocument.Parse(line);
            string text = string.Join(' ', s_reported.Select(name =>
                $"{name}={(record.RootElement.TryGetProperty(name, out JsonElement value) ? value.GetRawText() : "none")}"));
            _values.Add($"metrics line {++number:D4}", text);
        }
    }

    private void AddSamples(string path)
    {
        foreach ((string line, int index) in File.ReadLines(path).Select((line, index) => (line, index)))
        {
            _values.Add($"samples line {index + 1:D4}", line);
        }
    }

    private async Task AddCheckpointAsync(ICheckpointStore store)
    {
        IReadOnlyList<CheckpointFinding> findings = await new CheckpointReader(store, TimeProvider.System).VerifyAsync(CancellationToken.None);
        CheckpointManifest manifest = findings.First(finding => finding.State == CheckpointState.Good).Manifest!;
        _values.Add("checkpoint step", $"{manifest.Step}");
        _values.Add("checkpoint cursor", $"{manifest.Cursor}");
        _values.Add("checkpoint seed", $"{manifest.Seed}");
        _values.Add("checkpoint fingerprint", manifest.Fingerprint);
        using var content = new MemoryStream();
        await using (Stream shard = await store.OpenReadAsync(manifest.Shard(0).Path, CancellationToken.None))
        {
            await shard.CopyToAsync(content);
        }
        foreach ((string name, string value) in Tensors(content.ToArray()))
        {
            _values.Add($"tensor {name}", value);
        }
    }

    /// <summary>Type, shape and bytes of each tensor, read without the code under test.</summary>
    private static IEnumerable<(string Name, string Value)> Tensors(byte[] safetensors)
    {
        int data = 8 + (int)BinaryPrimitives.ReadInt64LittleEndian(safetensors);
        foreach ((string name, JsonNode? entry) in JsonNode.Parse(safetensors.AsSpan(8, data - 8))!.AsObject().Where(entry => entry.Key != "__metadata__"))
        {
            int begin = data + (int)entry!["data_offsets"]![0]!, end = data + (int)entry["data_offsets"]![1]!;
            yield return (name, $"{entry["dtype"]} {entry["shape"]!.ToJsonString()} {Hash(safetensors.AsSpan(begin, end - begin))}");
        }
    }

    private static string Hash(ReadOnlySpan<byte> bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));
}
