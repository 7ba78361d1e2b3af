using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

/// <summary>
/// The products of a linear layer. On the CPU no bit of a row depends on the rows beside it, so that packing documents
/// changes nothing; on CUDA they are torch's.
/// </summary>
internal static class Matmul
{
    /// <summary>x · weightᵀ, [T, I] and [O, I] to [T, O].</summary>
    public static Tensor Forward(Tensor x_TI, Tensor weight_OI)
    {
        if (x_TI.KernelDevice() == KernelDevice.Cuda)
        {
            return x_TI.mm(weight_OI.t());
        }

        Tensor y_TO = empty(x_TI.size(0), weight_OI.size(0), x_TI.dtype, x_TI.device);
        Run(x_TI, false, weight_OI, true, y_TO, false);
        return y_TO;
    }

    /// <summary>The same, added to y.</summary>
    public static void AddForward(Tensor x_TI, Tensor weight_OI, Tensor y_TO) => Run(x_TI, false, weight_OI, true, y_TO, true);

    /// <summary>dy · weight, [T, O] and [O, I] into [T, I], or added to it: the gradient of x.</summary>
    public static void InputGradient(Tensor dy_TO, Tensor weight_OI, Tensor dx_TI, bool accumulate = false) =>
        Run(dy_TO, false, weight_OI, false, dx_TI, accumulate);

    /// <summary>dyᵀ · x, [T, O] and [T, I] into [O, I] of any dtype, or added to it: the gradient of the weight.</summary>
    public static void WeightGradient(Tensor dy_TO, Tensor x_TI, Tensor dweight_OI, bool accumulate = false) =>
        Run(dy_TO, true, x_TI, false, dweight_OI, accumulate);

    private static void Run(Tensor a, bool aTransposed, Tensor b, bool bTransposed, Tensor c_MN, bool accumulate)
    {
        if (c_MN.KernelDevice() == KernelDevice.Cuda)
        {
            using TorchSharp.DisposeScope scope = NewDisposeScope();
            Tensor left_MK = aTransposed ? a.t() : a, right_KN = bTransposed ? b.t() : b;
            if (c_MN.dtype == a.dtype)
            {
                c_MN.addmm_(left_MK, right_KN, beta: accumulate ? 1 : 0);
            }
            else if (c_MN.dtype == float32 && Fused.HasWideProduct)
            {
                Fused.WideProduct(left_MK, right_KN, c_MN, accumulate);
            }
            else if (accumulate)
            {
                c_MN.add_(left_MK.mm(right_KN));
            }
            else
            {
                c_MN.copy_(left_MK.mm(right_KN));
            }

            return;
        }
        tn_tensor left = a.View(), right = b.View(), result = c_MN.View();
        var args = new tn_matmul_args
        {
            device = c_MN.KernelDevice(),
            dtype = a.KernelDtype(),
            result_dtype = c_MN.KernelDtype(),
            a_transposed = aTransposed ? 1 : 0,
            b_transposed = bTransposed ? 1 : 0,
            accumulate = accumulate ? 1 : 0,
            rows = c_MN.size(0),
            columns = c_MN.size(1),
            depth = a.size(aTransposed ? 0 : 1),
            a = left.data,
            a_stride = left.token_stride,
            b = right.data,
            b_stride = right.token_stride,
            c_MN = result.data,
            c_stride = result.token_stride,
        };
        KernelException.ThrowIfFailed(TrainerKernels.tn_matmul(args, 0));
    }
}
