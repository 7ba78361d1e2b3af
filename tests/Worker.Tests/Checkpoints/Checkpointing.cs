using System.Text;
using System.Text.Json;
using Trainer.Worker.Checkpoints;

namespace Trainer.Worker.Tests.Checkpoints;

/// <summary>A small training's checkpoints: their content is a function of the step.</summary>
internal static class Checkpointing
{
    public const string Fingerprint = "4f1c";

    public static CheckpointAuthor Author(int attempt, string fingerprint = Fingerprint, string job = "demo") => new()
    {
        Job = job,
        Fingerprint = fingerprint,
        Attempt = attempt,
        Seed = 42,
        Libraries = new Dictionary<string, string> { ["libtorch"] = "2.11" },
        Config = JsonDocument.Parse("""{"name":"demo","optimizer":{"learning_rate":1e-5}}""").RootElement,
    };

    public static CheckpointWriter Writer(
        ICheckpointStore store, int attempt = 1, int keep = 9, Func<CheckpointPhase, ValueTask>? phase = null, string fingerprint = Fingerprint, string job = "demo") =>
        new(store, Author(attempt, fingerprint, job), new CheckpointWriterOptions { Keep = keep, Phase = phase });

    public static CheckpointSnapshot Snapshot(long step, double? evaluationLoss = null) => new()
    {
        Step = step,
        Cursor = step * 10,
        EvaluationLoss = evaluationLoss,
        Tensors =
        [
            new(new TensorSpec("weight", TensorDType.F32, [8, 4]), NativeBuffer.Copy(Content(step, 128))),
            new(new TensorSpec("moment", TensorDType.BF16, [8, 4]), NativeBuffer.Copy(Content(step + 1, 64))),
            new(new TensorSpec("rng", TensorDType.U8, [5]), NativeBuffer.Copy(Content(step + 2, 5))),
        ],
        Attachments = new Dictionary<string, ReadOnlyMemory<byte>> { ["history.jsonl"] = Encoding.UTF8.GetBytes($"{{\"step\":{step}}}\n") },
    };

    public static byte[] Content(long seed, int length)
    {
        byte[] bytes = new byte[length];
        new Random((int)seed).NextBytes(bytes);
        return bytes;
    }

    public static async Task SaveAsync(this CheckpointWriter writer, long step, double? evaluationLoss = null)
    {
        await writer.BeginSaveAsync(Snapshot(step, evaluationLoss), default);
        await writer.CompleteAsync();
    }

    public static async Task<(CheckpointManifest? Manifest, List<CheckpointFinding> Findings)> FindNewestAsync(ICheckpointStore store)
    {
        List<CheckpointFinding> findings = [];
        CheckpointReader reader = new(store, TimeProvider.System, findings.Add);
        return (await reader.FindNewestAsync("demo", Fingerprint, default), findings);
    }

    /// <summary>Reads everything back and compares it with what <see cref="Snapshot"/> gave.</summary>
    public static async Task RequireContentAsync(ICheckpointStore store, CheckpointManifest manifest)
    {
        CheckpointReader reader = new(store, TimeProvider.System);
        Dictionary<string, NativeBuffer> read = [];
        IReadOnlyList<TensorEntry> entries = await reader.ReadShardAsync(
            manifest.Shard(0), entry => read[entry.Name] = NativeBuffer.Allocate(entry.Length), default);
        using CheckpointSnapshot expected = Snapshot(manifest.Step);
        Assert.Equal(expected.Tensors.Select(t => t.Spec.Name), entries.Select(e => e.Name));
        foreach (CheckpointTensor tensor in expected.Tensors)
        {
            int length = (int)tensor.Spec.Length;
            Assert.Equal(tensor.Data.AsSpan(0, length).ToArray(), read[tensor.Spec.Name].AsSpan(0, length).ToArray());
            read[tensor.Spec.Name].Dispose();
        }

        byte[] history = await reader.ReadAttachmentAsync(manifest.Attachment("history.jsonl")!, default);
        Assert.Equal(expected.Attachments["history.jsonl"].ToArray(), history);
        Assert.Equal(manifest.Step * 10, manifest.Cursor);
    }
}
