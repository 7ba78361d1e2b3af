using TorchSharp.Native;
using static TorchSharp.torch;

namespace TorchSharp.Extras;

/// <summary>Operators of libtorch that do in one launch what takes several otherwise; not every libtorch has each.</summary>
public static unsafe class Fused
{
    private static readonly bool s_hasForeachCopy = Aten.Has("_foreach_copy_");

    /// <summary>In one launch, from 2.5.</summary>
    private static readonly bool s_foreachNormTakesType = Version.TryParse(loaded_version.Split('+', 'a', 'r')[0], out Version? version) && version >= new Version(2, 5);

    /// <summary>On CUDA, from 2.8.</summary>
    public static bool HasRmsNorm => Aten.Has("_fused_rms_norm") && Aten.Has("_fused_rms_norm_backward");

    /// <returns>The normed tensor and 1 / root mean square of each row, in float32.</returns>
    public static (Tensor Normed, Tensor Rstd) RmsNorm(Tensor x, Tensor weight, double epsilon) =>
        Aten.Pair("_fused_rms_norm", x, new[] { weight.size(0) }, weight, epsilon);

    /// <param name="wantsWeight">Otherwise the second result is none.</param>
    public static (Tensor Dx, Tensor? Dweight) RmsNormBackward(Tensor dy, Tensor x, Tensor rstd, Tensor weight, bool wantsWeight)
    {
        long[] shape = [weight.size(0)], mask = [1, wantsWeight ? 1 : 0];
        if (wantsWeight)
        {
            return Aten.Pair("_fused_rms_norm_backward", dy, x, shape, rstd, weight, mask);
        }

        return (Aten.Call("_fused_rms_norm_backward", dy, x, shape, rstd, weight, mask), null);
    }

    /// <summary>
    /// into = scale * left right, or that added to it, unseen by autograd. A float32 result of 16-bit factors is not rounded on its way
    /// on CUDA from 2.8.
    /// </summary>
    public static void Product(Columns left, Columns right, Columns into, double scale, bool accumulate)
    {
        NativeColumns c = into.Native, a = left.Native, b = right.Native;
        TorchError.ThrowIfFailed(NativeMethods.tt_product(&c, &a, &b, scale, accumulate ? 1 : 0));
    }

    /// <summary>Copies each of the sources into its target, in few launches from 2.2.</summary>
    public static void Copy(Tensor[] targets, Tensor[] sources)
    {
        if (s_hasForeachCopy && targets.Length > 0)
        {
            Aten.Run("_foreach_copy_", targets, sources);
            return;
        }

        foreach ((Tensor target, Tensor source) in targets.Zip(sources))
        {
            target.copy_(source);
        }
    }

    /// <summary>Each of the tensors times a number, in few launches.</summary>
    public static Tensor[] Scale(Tensor[] tensors, double scale) =>
        tensors.Length == 0 ? [] : Aten.List("_foreach_mul.Scalar", tensors, (Scalar)scale);

    /// <summary>The gradient of silu at x into a tensor or slice of one.</summary>
    public static void SiluBackward(Tensor gradient, Tensor x, Tensor into) => Aten.Run("silu_backward.grad_input", gradient, x, into);

    public static void Multiply(Tensor left, Tensor right, Tensor into) => Aten.Run("mul.out", left, right, into);

    /// <summary>Rounded once to the type of <paramref name="into"/>.</summary>
    public static void Exponential(Tensor x, Tensor into) => Aten.Run("exp.out", x, into);

    /// <summary>AdamW's step on all tensors at once, in float32 on CUDA.</summary>
    /// <param name="steps">Each a float32 scalar on the device with this step's number.</param>
    public static void AdamW(Tensor[] parameters, Tensor[] gradients, Tensor[] expAvgs, Tensor[] expAvgSqs, Tensor[] steps,
        double learningRate, double beta1, double beta2, double weightDecay, double epsilon) =>
        Aten.Run("_fused_adamw_", parameters, gradients, expAvgs, expAvgSqs, Array.Empty<Tensor>(), steps,
            learningRate, beta1, beta2, weightDecay, epsilon, false, false);

    /// <summary>The L2 norm of all tensors together, a scalar on their device, from float32 norms of each.</summary>
    public static Tensor Norm(Tensor[] tensors)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] norms = s_foreachNormTakesType
            ? Aten.List("_foreach_norm.Scalar", tensors, (Scalar)2.0, ScalarType.Float32)
            : [.. tensors.Select(tensor => Aten.Call("linalg_vector_norm", tensor, (Scalar)2.0, Value.None, false, ScalarType.Float32))];
        return stack(norms).to(ScalarType.Float64).square().sum().sqrt().MoveToOuterDisposeScope();
    }

    /// <summary>Which kernels scaled_dot_product_attention takes for these: math, flash, mem-efficient or cuDNN.</summary>
    public static string AttentionKernels(Tensor query, Tensor key, Tensor value, bool is_causal) =>
        Aten.Number("_fused_sdp_choice", query, key, value, Value.None, 0.0, is_causal).ToInt64() switch
        {
            0 => "math",
            1 => "flash",
            2 => "mem-efficient",
            3 => "cuDNN",
            var other => $"kernels number {other}",
        };

    /// <summary>query [1, N, T, H], key and value [1, M, T, H] with N a multiple of M, causal. From 2.5.</summary>
    public static Tensor GroupedAttention(Tensor query, Tensor key, Tensor value, double scale) =>
        Aten.Call("scaled_dot_product_attention", query, key, value, Value.None, 0.0, true, scale, true);
}
