namespace Trainer.Worker.Checkpoints;

/// <summary>The element types of safetensors files that we read and write.</summary>
public enum TensorDType { F64, F32, F16, BF16, I64, I32, I16, I8, U8, Bool }

public static class TensorDTypes
{
    /// <summary>Bytes of one element.</summary>
    public static int Size(this TensorDType dtype) => dtype switch
    {
        TensorDType.F64 or TensorDType.I64 => 8,
        TensorDType.F32 or TensorDType.I32 => 4,
        TensorDType.F16 or TensorDType.BF16 or TensorDType.I16 => 2,
        _ => 1,
    };

    /// <summary>The name in a safetensors header.</summary>
    public static string SafetensorsName(this TensorDType dtype) => dtype == TensorDType.Bool ? "BOOL" : dtype.ToString();

    internal static bool TryParse(string? name, out TensorDType dtype)
    {
        foreach (TensorDType candidate in Enum.GetValues<TensorDType>())
        {
            if (candidate.SafetensorsName() == name)
            {
                dtype = candidate;
                return true;
            }
        }

        dtype = default;
        return false;
    }
}

/// <summary>A tensor to be written. An empty shape is a scalar.</summary>
public sealed record TensorSpec(string Name, TensorDType DType, IReadOnlyList<long> Shape)
{
    /// <summary>Bytes of the tensor.</summary>
    public long Length => Shape.Aggregate((long)DType.Size(), (length, size) => checked(length * size));
}

/// <summary>A tensor in a file: <paramref name="Offset"/> counts from the start of the file, both in bytes.</summary>
public sealed record TensorEntry(string Name, TensorDType DType, IReadOnlyList<long> Shape, long Offset, long Length);
