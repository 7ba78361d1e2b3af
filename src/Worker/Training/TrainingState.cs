using System.Numerics;
using System.Runtime.InteropServices;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Training;

/// <summary>What a checkpoint holds of a run: trained weights and moments under Hugging Face names, cursor and loss history.</summary>
public static class TrainingState
{
    public const string HistoryFile = "history.jsonl";

    private const int ChecksumChunk = 1 << 26;

    /// <summary>Copies everything to host memory; training may go on as soon as this returns.</summary>
    public static CheckpointSnapshot Capture(AdamW optimizer, long step, long cursor, double? evaluationLoss, byte[] history)
    {
        var tensors = new List<CheckpointTensor>();
        foreach ((string name, Tensor tensor) in optimizer.Trained.SelectMany(optimizer.State))
        {
            tensors.Add(new CheckpointTensor(new TensorSpec(name, TensorDType.F32, tensor.shape), HostMemory.Copy(() => tensor.alias())));
        }

        return new CheckpointSnapshot
        {
            Step = step,
            Cursor = cursor,
            EvaluationLoss = evaluationLoss,
            Tensors = tensors,
            Attachments = new Dictionary<string, ReadOnlyMemory<byte>> { [HistoryFile] = history },
        };
    }

    /// <summary>Over every weight and moment: ranks with one number hold one state.</summary>
    public static long Checksum(QwenModel model, AdamW optimizer)
    {
        ulong sum = 0;
        foreach (Tensor tensor in model.NamedTensors().Select(tensor => (Tensor)tensor.Parameter).Distinct()
            .Concat(optimizer.Trained.SelectMany(optimizer.State).Select(state => state.Tensor)))
        {
            using NativeBuffer bytes = HostMemory.Copy(() => tensor.alias());
            for (long done = 0; done < bytes.Length; done += ChecksumChunk)
            {
                sum = Checksum(sum, bytes.AsMemory(done, (int)Math.Min(ChecksumChunk, bytes.Length - done)).Span);
            }
        }

        return (long)sum;
    }

    /// <summary>Overwrites weights and moments with a verified checkpoint's.</summary>
    /// <returns>The loss history up to that step.</returns>
    /// <exception cref="JobInputException">The checkpoint holds other tensors than the job trains.</exception>
    public static async Task<byte[]> RestoreAsync(AdamW optimizer, CheckpointReader reader, CheckpointManifest manifest, CancellationToken cancellationToken)
    {
        Dictionary<string, Tensor> targets = optimizer.Trained.SelectMany(optimizer.State).ToDictionary(state => state.Name, state => state.Tensor);
        await ReadAsync(targets, reader, manifest, cancellationToken);
        optimizer.PublishMasters();
        CheckpointFile history = manifest.Attachment(HistoryFile)
            ?? throw new JobInputException($"step {manifest.Step}: {HistoryFile} is missing in the checkpoint");
        return await reader.ReadAttachmentAsync(history, cancellationToken);
    }

    /// <summary>Overwrites a model's trained weights with a verified checkpoint's, without moments.</summary>
    public static async Task RestoreWeightsAsync(QwenModel model, CheckpointReader reader, CheckpointManifest manifest, CancellationToken cancellationToken)
    {
        var masters = new Dictionary<string, Tensor>();
        foreach (NamedTensor tensor in model.TrainedTensors())
        {
            masters[tensor.Name] = zeros(tensor.Slice(tensor.Parameter).shape, dtype: ScalarType.Float32).DetachFromDisposeScope();
        }

        await ReadAsync(masters, reader, manifest, cancellationToken);
        using var _ = no_grad();
        foreach (NamedTensor tensor in model.TrainedTensors())
        {
            using DisposeScope scope = NewDisposeScope();
            tensor.Slice(tensor.Parameter).copy_(masters[tensor.Name]);
            masters[tensor.Name].Dispose();
        }
    }

    /// <summary>Each word goes in by a bijection, so one that differs always shows.</summary>
    private static ulong Checksum(ulong sum, ReadOnlySpan<byte> bytes)
    {
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(bytes);
        foreach (ulong word in words)
        {
            sum = (BitOperations.RotateLeft(sum, 29) ^ word) * 0x9E3779B97F4A7C15;
        }

        foreach (byte rest in bytes[(words.Length * sizeof(ulong))..])
        {
            sum = (BitOperations.RotateLeft(sum, 29) ^ rest) * 0x9E3779B97F4A7C15;
        }

        return sum;
    }

    private static async Task ReadAsync(
        Dictionary<string, Tensor> targets, CheckpointReader reader, CheckpointManifest manifest, CancellationToken cancellationToken)
    {
        var missing = targets.Keys.ToHashSet();
        var staged = new List<(Tensor Target, Tensor Host)>();
        await reader.ReadShardAsync(manifest.Shard(0), entry =>
        {
            if (!targets.TryGetValue(entry.Name, out Tensor? target))
            {
                return null;
            }

            if (entry.DType != TensorDType.F32 || !entry.Shape.SequenceEqual(target.shape))
            {
                throw new JobInputException($"checkpoint of step {manifest.Step}: {entry.Name} is {entry.DType} [{string.Join(", ", entry.Shape)}], "
                    + $"but the job trains F32 [{string.Join(", ", target.shape)}]");
            }

            missing.Remove(entry.Name);
            if (target.device_type == DeviceType.CPU)
            {
                return NativeBuffer.Borrow(target.DataPointer, entry.Length);
            }

            Tensor host = empty(target.shape, dtype: ScalarType.Float32).DetachFromDisposeScope();
            staged.Add((target, host));
            return NativeBuffer.Borrow(host.DataPointer, entry.Length);
        }, cancellationToken);
        using var _ = no_grad();
        foreach ((Tensor target, Tensor host) in staged)
        {
            target.copy_(host);
            host.Dispose();
        }

        if (missing.Count > 0)
        {
            throw new JobInputException($"checkpoint of step {manifest.Step}: {missing.First()} is missing, and {missing.Count - 1} more");
        }
    }
}
