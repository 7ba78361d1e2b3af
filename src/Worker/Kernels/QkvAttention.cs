using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

/// <summary>What is the same for every token of <see cref="Ops.QkvAttention"/>.</summary>
/// <param name="Heads">N, a multiple of M.</param>
/// <param name="KvHeads">M.</param>
/// <param name="Epsilon">Of the norms.</param>
/// <param name="Scale">Scores are Scale * (q . k).</param>
/// <param name="Window">Keys further left than this are not seen; -1: no limit.</param>
/// <param name="Deterministic">As for <see cref="Ops.FlashAttention"/>.</param>
public sealed record QkvAttentionShape(int Heads, int KvHeads, double Epsilon, double Scale, int Window = -1, bool Deterministic = true);

public static partial class Ops
{
    /// <summary>
    /// <see cref="FlashAttention"/> of queries, keys and values that lie side by side in the rows of their product, after
    /// <see cref="RmsNorm"/> of each query and key head and <see cref="Rotary"/>. One function, so that nothing is split and no gradients are put together.
    /// </summary>
    /// <param name="qkv_TE">[T, (N + 2 M) H], contiguous; dtypes as there.</param>
    /// <param name="qNorm_H">Weight of the queries' norm; null, as <paramref name="kNorm_H"/> is then, without norms.</param>
    /// <param name="cos_TH2">float32 [T, H/2], as for <see cref="Rotary"/>; so is <paramref name="sin_TH2"/>.</param>
    /// <param name="cuSeqlens">As there.</param>
    /// <returns>[T, N H], contiguous.</returns>
    /// <exception cref="ArgumentException">Dtype, shape or layout of the named tensor.</exception>
    /// <exception cref="KernelException">The boundaries, head counts or device do not fit.</exception>
    public static Tensor QkvAttention(Tensor qkv_TE, Tensor? qNorm_H, Tensor? kNorm_H, Tensor cos_TH2, Tensor sin_TH2, Tensor cuSeqlens, QkvAttentionShape shape)
    {
        if (qNorm_H is null != kNorm_H is null)
        {
            throw new ArgumentException("qNorm_H and kNorm_H come together or not at all", nameof(qNorm_H));
        }

        qkv_TE.RequireShape([-1, (shape.Heads + (2 * shape.KvHeads)) * 2 * cos_TH2.size(1)]);
        return QkvAttentionFunction.apply(qkv_TE, qNorm_H!, kNorm_H!, cos_TH2, sin_TH2, cuSeqlens, shape);
    }
}

internal sealed class QkvAttentionFunction : autograd.SingleTensorFunction<QkvAttentionFunction>
{
    public override string Name => "QkvAttention";

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (qkv_TE, qNorm_H, kNorm_H) = ((Tensor)vars[0], vars[1] as Tensor, vars[2] as Tensor);
        var (cos_TH2, sin_TH2, shape) = ((Tensor)vars[3], (Tensor)vars[4], (QkvAttentionShape)vars[6]);
        var kernel = new FlashAttentionKernel((Tensor)vars[5], shape.Scale, shape.Window, shape.Deterministic);
        var given = new Heads(qkv_TE, shape);
        Tensor turned_TRH = empty([qkv_TE.size(0), shape.Heads + shape.KvHeads, given.Size], qkv_TE.dtype, qkv_TE.device);
        (Tensor q_TNH, Tensor k_TMH) = (turned_TRH.narrow(1, 0, shape.Heads), turned_TRH.narrow(1, shape.Heads, shape.KvHeads));
        Tensor? qRstd = qNorm_H is null ? null : RmsNormKernel.Forward(given.Q_TNH, null, qNorm_H, shape.Epsilon, q_TNH).Rstd;
        Tensor? kRstd = kNorm_H is null ? null : RmsNormKernel.Forward(given.K_TMH, null, kNorm_H, shape.Epsilon, k_TMH).Rstd;
        RotaryKernel.Turn(qNorm_H is null ? given.Qk_TRH : turned_TRH, cos_TH2, sin_TH2, inverse: false, turned_TRH);
        (Tensor out_TNH, Tensor lse_NT) = kernel.Forward(q_TNH, k_TMH, given.V_TMH);
        ctx.save_for_backward([qkv_TE, turned_TRH, out_TNH, lse_NT, cos_TH2, sin_TH2, qNorm_H!, qRstd!, kNorm_H!, kRstd!]);
        ctx.save_data("call", (kernel, shape));
        return out_TNH.view(qkv_TE.size(0), shape.Heads * given.Size);
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        var (kernel, shape) = ((FlashAttentionKernel, QkvAttentionShape))ctx.get_data("call");
        List<Tensor> saved = ctx.get_saved_variables();
        (Tensor qkv_TE, Tensor turned_TRH, Tensor out_TNH) = (saved[0], saved[1], saved[2]);
        Tensor dqkv_TE = empty(qkv_TE.shape, qkv_TE.dtype, qkv_TE.device);
        Heads given = new(qkv_TE, shape), gradients = new(dqkv_TE, shape);
        kernel.Backward(
            turned_TRH.narrow(1, 0, shape.Heads), turned_TRH.narrow(1, shape.Heads, shape.KvHeads), given.V_TMH, out_TNH, saved[3],
            grad_output.reshape(out_TNH.shape).AsRows(), gradients.Q_TNH, gradients.K_TMH, gradients.V_TMH);
        RotaryKernel.Turn(gradients.Qk_TRH, saved[4], saved[5], inverse: true, gradients.Qk_TRH);
        Tensor? dqNorm_H = Through(6, 1, given.Q_TNH, gradients.Q_TNH), dkNorm_H = Through(8, 2, given.K_TMH, gradients.K_TMH);
        return [dqkv_TE, dqNorm_H!, dkNorm_H!, null!, null!, null!, null!];

        // Gradients through a norm, in place.
        Tensor? Through(int weight, int argument, Tensor x, Tensor dy) => saved[weight] is null ? null
            : RmsNormKernel.Backward(x, saved[weight], saved[weight + 1], dy, null, ctx.needs_input_grad(argument), dy).Dweight;
    }

    /// <summary>The heads that lie side by side in rows, where they lie.</summary>
    private sealed class Heads(Tensor qkv_TE, QkvAttentionShape shape)
    {
        private readonly Tensor _all = qkv_TE.view(qkv_TE.size(0), shape.Heads + (2 * shape.KvHeads), qkv_TE.size(1) / (shape.Heads + (2 * shape.KvHeads)));

        public long Size => _all.size(2);

        public Tensor Q_TNH => _all.narrow(1, 0, shape.Heads);

        public Tensor K_TMH => _all.narrow(1, shape.Heads, shape.KvHeads);

        public Tensor V_TMH => _all.narrow(1, shape.Heads + shape.KvHeads, shape.KvHeads);

        /// <summary>Queries and keys.</summary>
        public Tensor Qk_TRH => _all.narrow(1, 0, shape.Heads + shape.KvHeads);
    }
}
