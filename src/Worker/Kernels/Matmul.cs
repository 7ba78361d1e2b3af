using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

/// <summary>
/// The products of a linear layer, each of whose matrices may be columns of a wider one. On the CPU no bit of a row depends on the rows
/// beside it, so that packing documents changes nothing; on CUDA they are torch's.
/// </summary>
internal static class Matmul
{
    /// <summary>x · weightᵀ, [T, I] and [O, I] to [T, O].</summary>
    public static Tensor Forward(Tensor x_TI, Tensor weight_OI)
    {
        Tensor y_TO = empty(x_TI.size(0), weight_OI.size(0), x_TI.dtype, x_TI.device);
        Run(x_TI, ((Columns)weight_OI).Transposed, y_TO);
        return y_TO;
    }

    /// <summary>The same, added to y.</summary>
    public static void AddForward(Columns x_TI, Columns weight_OI, Columns y_TO) => Run(x_TI, weight_OI.Transposed, y_TO, accumulate: true);

    /// <summary>dy · weight, [T, O] and [O, I] into [T, I], or added to it: the gradient of x.</summary>
    public static void InputGradient(Columns dy_TO, Columns weight_OI, Columns dx_TI, bool accumulate = false) =>
        Run(dy_TO, weight_OI, dx_TI, accumulate: accumulate);

    /// <summary>scale · dyᵀ · x, [T, O] and [T, I] into [O, I] of any dtype, or added to it: the gradient of the weight.</summary>
    public static void WeightGradient(Columns dy_TO, Columns x_TI, Tensor dweight_OI, double scale = 1, bool accumulate = false) =>
        Run(dy_TO.Transposed, x_TI, dweight_OI, scale, accumulate);

    private static void Run(Columns a, Columns b, Columns c, double scale = 1, bool accumulate = false)
    {
        if (c.Matrix.KernelDevice() == KernelDevice.Cuda)
        {
            Fused.Product(a, b, c, scale, accumulate);
            return;
        }

        if (scale != 1 && accumulate)
        {
            throw new NotSupportedException("the CPU's product adds unscaled");
        }

        (nint aData, long aStride) = Place(a);
        (nint bData, long bStride) = Place(b);
        (nint cData, long cStride) = Place(c);
        var args = new tn_matmul_args
        {
            device = KernelDevice.Cpu,
            dtype = a.Matrix.KernelDtype(),
            result_dtype = c.Matrix.KernelDtype(),
            a_transposed = a.IsTransposed ? 1 : 0,
            b_transposed = b.IsTransposed ? 1 : 0,
            accumulate = accumulate ? 1 : 0,
            rows = c.Matrix.size(0),
            columns = c.Count,
            depth = a.IsTransposed ? a.Matrix.size(0) : a.Count,
            a = aData,
            a_stride = aStride,
            b = bData,
            b_stride = bStride,
            c_MN = cData,
            c_stride = cStride,
        };
        KernelException.ThrowIfFailed(TrainerKernels.tn_matmul(args, 0));
        if (scale != 1)
        {
            c.Matrix.narrow(1, c.First, c.Count).mul_(scale);
        }
    }

    private static (nint Data, long Stride) Place(Columns columns)
    {
        tn_tensor whole = columns.Matrix.View();
        return (whole.data + (nint)(columns.First * columns.Matrix.element_size()), whole.token_stride);
    }
}
