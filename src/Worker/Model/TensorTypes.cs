using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>Dtypes in safetensors, in job configurations and in libtorch.</summary>
public static class TensorTypes
{
    public static ScalarType ToTorch(TensorDType dtype) => dtype switch
    {
        TensorDType.F64 => ScalarType.Float64,
        TensorDType.F32 => ScalarType.Float32,
        TensorDType.F16 => ScalarType.Float16,
        TensorDType.BF16 => ScalarType.BFloat16,
        TensorDType.I64 => ScalarType.Int64,
        TensorDType.I32 => ScalarType.Int32,
        TensorDType.I16 => ScalarType.Int16,
        TensorDType.I8 => ScalarType.Int8,
        TensorDType.U8 => ScalarType.Byte,
        _ => ScalarType.Bool,
    };

    public static TensorDType ToSafetensors(ScalarType dtype) => dtype switch
    {
        ScalarType.Float32 => TensorDType.F32,
        ScalarType.BFloat16 => TensorDType.BF16,
        ScalarType.Float16 => TensorDType.F16,
        ScalarType.Float64 => TensorDType.F64,
        _ => throw new ArgumentOutOfRangeException(nameof(dtype), dtype, "weights are floating point"),
    };

    /// <summary>The type in which a job computes: auto is bfloat16 on a GPU and float32 on a CPU.</summary>
    public static ScalarType Compute(DType dtype, Device device) => dtype switch
    {
        DType.Float32 => ScalarType.Float32,
        DType.Bfloat16 => ScalarType.BFloat16,
        _ => device.type == TorchSharp.DeviceType.CUDA ? ScalarType.BFloat16 : ScalarType.Float32,
    };
}
