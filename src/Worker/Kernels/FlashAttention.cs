using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

public static partial class Ops
{
    /// <summary>
    /// Causal softmax attention over packed sequences. Memory grows with T: only q, k, v, the result and one float a query
    /// and head are kept for backward.
    /// </summary>
    /// <param name="q_TNH">float32 or bfloat16, any strides with a contiguous last dimension, H in 1..256; on a GPU bfloat16, H and strides multiples of 8, H up to 128.</param>
    /// <param name="k_TMH">Like q; N is a multiple of M.</param>
    /// <param name="v_TMH">Like k.</param>
    /// <param name="cuSeqlens">int32 [S+1] on the CPU: sequence s owns tokens cuSeqlens[s] .. cuSeqlens[s+1]-1.</param>
    /// <param name="scale">Scores are scale * (q . k).</param>
    /// <param name="window">Keys further left than this are not seen; -1: no limit.</param>
    /// <param name="deterministic">False: the backward pass on a GPU may add up in any order, which is faster.</param>
    /// <returns>[T, N, H], contiguous.</returns>
    /// <exception cref="ArgumentException">Dtype, shape or layout of the named tensor.</exception>
    /// <exception cref="KernelException">The boundaries, head counts or device do not fit.</exception>
    public static Tensor FlashAttention(Tensor q_TNH, Tensor k_TMH, Tensor v_TMH, Tensor cuSeqlens, double scale, int window = -1, bool deterministic = true) =>
        FlashAttentionFunction.apply(q_TNH, k_TMH, v_TMH, cuSeqlens, scale, window, deterministic);
}

internal sealed class FlashAttentionFunction : autograd.SingleTensorFunction<FlashAttentionFunction>
{
    public override string Name => "FlashAttention";

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (q_TNH, k_TMH, v_TMH) = ((Tensor)vars[0], (Tensor)vars[1], (Tensor)vars[2]);
        var kernel = new FlashAttentionKernel((Tensor)vars[3], (double)vars[4], (int)vars[5], (bool)vars[6]);
        (Tensor out_TNH, Tensor lse_NT) = kernel.Forward(q_TNH, k_TMH, v_TMH);
        ctx.save_for_backward([q_TNH, k_TMH, v_TMH, out_TNH, lse_NT]);
        ctx.save_data(nameof(kernel), kernel);
        return out_TNH;
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        List<Tensor> saved = ctx.get_saved_variables();
        var (q_TNH, k_TMH, v_TMH) = (saved[0], saved[1], saved[2]);
        Tensor dq_TNH = empty(q_TNH.shape, q_TNH.dtype, q_TNH.device);
        Tensor dk_TMH = empty(k_TMH.shape, k_TMH.dtype, k_TMH.device);
        Tensor dv_TMH = empty(v_TMH.shape, v_TMH.dtype, v_TMH.device);
        ((FlashAttentionKernel)ctx.get_data("kernel")).Backward(q_TNH, k_TMH, v_TMH, saved[3], saved[4], grad_output.AsRows(), dq_TNH, dk_TMH, dv_TMH);
        return [dq_TNH, dk_TMH, dv_TMH, null!, null!, null!, null!];
    }
}

/// <summary>The kernels of one call and of its gradients; q, k, v and all gradients may be slices of wider tensors.</summary>
internal sealed unsafe class FlashAttentionKernel
{
    private readonly int[] _boundaries;
    private readonly double _scale;
    private readonly int _window;
    private readonly bool _deterministic;

    /// <summary>As for <see cref="Ops.FlashAttention"/>.</summary>
    public FlashAttentionKernel(Tensor cuSeqlens, double scale, int window, bool deterministic)
    {
        cuSeqlens.RequireDtype(int32);
        cuSeqlens.RequireShape([-1]);
        if (cuSeqlens.device_type != DeviceType.CPU || cuSeqlens.NumberOfElements == 0)
        {
            throw new ArgumentException($"cuSeqlens must hold at least one number, on the CPU: {cuSeqlens}", nameof(cuSeqlens));
        }

        _boundaries = cuSeqlens.data<int>().ToArray();
        (_scale, _window, _deterministic) = (scale, window, deterministic);
    }

    public (Tensor Out_TNH, Tensor Lse_NT) Forward(Tensor q_TNH, Tensor k_TMH, Tensor v_TMH)
    {
        q_TNH.KernelDtype();
        q_TNH.RequireShape([-1, -1, -1]);
        k_TMH.RequireDtype(q_TNH.dtype);
        k_TMH.RequireShape([q_TNH.size(0), -1, q_TNH.size(2)]);
        v_TMH.RequireDtype(q_TNH.dtype);
        v_TMH.RequireShape(k_TMH.shape);
        Tensor out_TNH = empty(q_TNH.shape, q_TNH.dtype, q_TNH.device);
        Tensor lse_NT = empty(q_TNH.size(1), q_TNH.size(0), float32, q_TNH.device);
        fixed (int* boundaries = _boundaries)
        {
            var args = new tn_attention_forward_args
            {
                shape = Shape(q_TNH, k_TMH, boundaries),
                q_TNH = q_TNH.View(),
                k_TMH = k_TMH.View(),
                v_TMH = v_TMH.View(),
                out_TNH = out_TNH.View(),
                lse_NT = lse_NT.Elements(),
            };
            KernelException.ThrowIfFailed(TrainerKernels.tn_attention_forward(args, q_TNH.KernelStream()));
        }

        return (out_TNH, lse_NT);
    }

    /// <summary>Writes the last three.</summary>
    public void Backward(
        Tensor q_TNH, Tensor k_TMH, Tensor v_TMH, Tensor out_TNH, Tensor lse_NT, Tensor dout_TNH, Tensor dq_TNH, Tensor dk_TMH, Tensor dv_TMH)
    {
        fixed (int* boundaries = _boundaries)
        {
            tn_attention_shape shape = Shape(q_TNH, k_TMH, boundaries);
            KernelException.ThrowIfFailed(TrainerKernels.tn_attention_backward_scratch_bytes(shape, _deterministic ? 1 : 0, out long bytes));
            Tensor scratch = empty(bytes, uint8, dq_TNH.device);
            var args = new tn_attention_backward_args
            {
                deterministic = _deterministic ? 1 : 0,
                shape = shape,
                q_TNH = q_TNH.View(),
                k_TMH = k_TMH.View(),
                v_TMH = v_TMH.View(),
                out_TNH = out_TNH.View(),
                lse_NT = lse_NT.Elements(),
                dout_TNH = dout_TNH.View(),
                dq_TNH = dq_TNH.View(),
                dk_TMH = dk_TMH.View(),
                dv_TMH = dv_TMH.View(),
                scratch = scratch.Elements(),
                scratch_bytes = bytes,
            };
            KernelException.ThrowIfFailed(TrainerKernels.tn_attention_backward(args, dq_TNH.KernelStream()));
        }
    }

    private tn_attention_shape Shape(Tensor q_TNH, Tensor k_TMH, int* boundaries) => new()
    {
        device = q_TNH.KernelDevice(),
        dtype = q_TNH.KernelDtype(),
        q_tokens = q_TNH.size(0),
        k_tokens = k_TMH.size(0),
        q_heads = checked((int)q_TNH.size(1)),
        kv_heads = checked((int)k_TMH.size(1)),
        head_dim = checked((int)q_TNH.size(2)),
        sequences = _boundaries.Length - 1,
        cu_seqlens_q = (nint)boundaries,
        cu_seqlens_k = (nint)boundaries,
        scale = (float)_scale,
        causal = 1,
        window = _window,
    };
}
