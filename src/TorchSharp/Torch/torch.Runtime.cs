using TorchSharp.Native;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    /// <summary>Threads of one CPU operator.</summary>
    public static int get_num_threads() => tt_get_num_threads();

    public static void set_num_threads(int num) => TorchError.ThrowIfFailed(tt_set_num_threads(num));

    /// <summary>Operators without a deterministic implementation then fail, or only warn.</summary>
    public static void use_deterministic_algorithms(bool mode = true, bool warn_only = false) =>
        TorchError.ThrowIfFailed(tt_set_deterministic(mode ? 1 : 0, warn_only ? 1 : 0));

    public static bool cuda_is_available() => cuda.is_available();

    public static class cuda
    {
        public static bool is_available() => device_count() > 0;

        public static int device_count()
        {
            TorchError.ThrowIfFailed(tt_cuda_device_count(out int count));
            return count;
        }
    }

    public static class backends
    {
        public static class cuda
        {
            public static class matmul
            {
                /// <summary>Float32 products on TF32 tensor cores: 10 bits of mantissa.</summary>
                public static bool allow_tf32
                {
                    set => TorchError.ThrowIfFailed(tt_set_allow_tf32(value ? 1 : 0));
                }
            }
        }
    }
}
