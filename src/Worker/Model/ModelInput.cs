using Trainer.Worker.Data;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>Packed documents as tensors: one micro-batch of T tokens in S documents.</summary>
public sealed class ModelInput : IDisposable
{
    private ModelInput(Tensor tokens, Tensor positions, Tensor cuSeqlens, Tensor? labels, int lastPosition)
    {
        Tokens = tokens.DetachFromDisposeScope();
        Positions = positions.DetachFromDisposeScope();
        CuSeqlens = cuSeqlens.DetachFromDisposeScope();
        Labels = labels?.DetachFromDisposeScope();
        LastPosition = lastPosition;
    }

    /// <summary>int64 [T].</summary>
    public Tensor Tokens { get; }

    /// <summary>int64 [T]: each token's place in its document.</summary>
    public Tensor Positions { get; }

    /// <summary>int32 [S + 1], on the CPU.</summary>
    public Tensor CuSeqlens { get; }

    /// <summary>int64 [T], on the CPU: the token that should follow, -100 where nothing is trained.</summary>
    public Tensor? Labels { get; }

    public int LastPosition { get; }

    public static ModelInput From(PackedBatch batch, Device device)
    {
        using DisposeScope scope = NewDisposeScope();
        return new ModelInput(
            tensor(batch.Tokens, [batch.Tokens.Length]).to(ScalarType.Int64).to(device),
            tensor(batch.Positions, [batch.Positions.Length]).to(ScalarType.Int64).to(device),
            tensor(batch.CuSeqlens, [batch.CuSeqlens.Length]),
            tensor(batch.Labels, [batch.Labels.Length]),
            batch.Positions.Max());
    }

    /// <summary>One document without labels whose first token stands at <paramref name="position"/>.</summary>
    public static ModelInput Sequence(ReadOnlySpan<int> tokens, int position, Device device)
    {
        using DisposeScope scope = NewDisposeScope();
        return new ModelInput(
            tensor(tokens.ToArray(), [tokens.Length]).to(ScalarType.Int64).to(device),
            (arange(tokens.Length, dtype: ScalarType.Int64) + position).to(device),
            tensor(new[] { 0, tokens.Length }, [2]),
            null,
            position + tokens.Length - 1);
    }

    public void Dispose()
    {
        Tokens.Dispose();
        Positions.Dispose();
        CuSeqlens.Dispose();
        Labels?.Dispose();
    }
}
