using TorchSharp.Native;
using static TorchSharp.torch;

namespace TorchSharp.Extras;

/// <summary>Columns of a matrix where they lie, or its transpose.</summary>
/// <param name="Matrix">[M, N].</param>
/// <param name="First">Of the columns.</param>
/// <param name="Count">From there on.</param>
/// <param name="IsTransposed">The chosen columns stand for rows.</param>
public readonly record struct Columns(Tensor Matrix, long First, long Count, bool IsTransposed = false)
{
    internal NativeColumns Native => new() { Tensor = Matrix.Handle, First = First, Count = Count, Transposed = IsTransposed ? 1 : 0 };

    /// <summary>All of them.</summary>
    public static implicit operator Columns(Tensor matrix) => new(matrix, 0, matrix.size(1));

    public Columns Transposed => this with { IsTransposed = !IsTransposed };
}
