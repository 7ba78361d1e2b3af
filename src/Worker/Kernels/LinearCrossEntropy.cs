using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Kernels;

public static partial class Ops
{
    /// <summary>
    /// The sum over rows of cross-entropy(hidden · weightᵀ, label), times scale. Logits only ever exist for one chunk of
    /// rows, and never for ignored ones; gradients are computed beside the loss, in forward.
    /// </summary>
    /// <param name="hidden_TD">float32 or bfloat16.</param>
    /// <param name="weight_VD">Dtype of hidden. Where it needs no gradient, none is computed.</param>
    /// <param name="labels_T">int64 on the CPU: 0..V-1, or -100 for a row that does not count.</param>
    /// <param name="scale">1 / (trained tokens of the whole step), for a mean over them.</param>
    /// <param name="chunkRows">Rows of logits at a time; 0: about 64 MiB of them, 512 MiB on a GPU.</param>
    /// <returns>A float32 scalar.</returns>
    /// <exception cref="ArgumentException">Dtype, shape or layout of the named tensor, or a label with its row.</exception>
    public static Tensor LinearCrossEntropy(Tensor hidden_TD, Tensor weight_VD, Tensor labels_T, double scale, int chunkRows = 0) =>
        LinearCrossEntropyFunction.apply(hidden_TD, weight_VD, labels_T, scale, chunkRows, is_grad_enabled());
}

internal sealed class LinearCrossEntropyFunction : autograd.SingleTensorFunction<LinearCrossEntropyFunction>
{
    private const long ChunkBytes = 64L << 20;

    /// <summary>Longer products fill a GPU better.</summary>
    private const long CudaChunkBytes = 512L << 20;

    public override string Name => "LinearCrossEntropy";

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (hidden_TD, weight_VD, labels_T) = ((Tensor)vars[0], (Tensor)vars[1], (Tensor)vars[2]);
        var (scale, chunkRows, withGradients) = ((double)vars[3], (int)vars[4], (bool)vars[5]);
        long[] trained = TrainedRows(hidden_TD, weight_VD, labels_T);
        Tensor rows_R = tensor(trained, int64);
        Tensor labels_R = labels_T.index_select(0, rows_R).to(hidden_TD.device);
        rows_R = rows_R.to(hidden_TD.device);
        var chunks = new Chunks(hidden_TD.index_select(0, rows_R), weight_VD.AsRows(), labels_R, (float)scale,
            withGradients && ctx.needs_input_grad(0), withGradients && ctx.needs_input_grad(1));
        long step = chunkRows > 0 ? chunkRows : Math.Max(1, (hidden_TD.KernelDevice() == KernelDevice.Cuda ? CudaChunkBytes : ChunkBytes) / Math.Max(1, weight_VD.size(0) * weight_VD.ElementSize));
        for (long begin = 0; begin < trained.Length; begin += step)
        {
            chunks.Add(begin, Math.Min(step, trained.Length - begin));
        }
        chunks.Finish();
        ctx.save_for_backward([Scattered(chunks.DHidden_RD, rows_R, hidden_TD)!, chunks.DWeight_VD?.to(weight_VD.dtype)!]);
        return chunks.Loss.mul(scale).to(float32);
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        List<Tensor> gradients = ctx.get_saved_variables();
        double factor = grad_output.ToDouble();
        Tensor? Times(Tensor? gradient) => gradient is null || factor == 1 ? gradient : gradient.mul(factor);
        return [Times(gradients[0])!, Times(gradients[1])!, null!, null!, null!, null!];
    }

    // Rows whose label is not ignored, in order.
    private static long[] TrainedRows(Tensor hidden_TD, Tensor weight_VD, Tensor labels_T)
    {
        hidden_TD.KernelDtype();
        hidden_TD.RequireShape([-1, -1]);
        weight_VD.RequireDtype(hidden_TD.dtype);
        weight_VD.RequireShape([-1, hidden_TD.size(1)]);
        labels_T.RequireDtype(int64);
        labels_T.RequireShape([hidden_TD.size(0)]);
        long[] labels = labels_T.data<long>().ToArray();
        long vocabulary = weight_VD.size(0);
        int wrong = Array.FindIndex(labels, label => label != TrainerKernels.IgnoreIndex && (label < 0 || label >= vocabulary));
        if (wrong >= 0)
        {
            throw new ArgumentException(
                $"labels_T: row {wrong} has label {labels[wrong]}, which is neither in 0..{vocabulary - 1} nor " +
                $"{TrainerKernels.IgnoreIndex}", nameof(labels_T));
        }
        return [.. Enumerable.Range(0, labels.Length).Where(row => labels[row] != TrainerKernels.IgnoreIndex).Select(row => (long)row)];
    }

    private static Tensor? Scattered(Tensor? gradient_RD, Tensor rows_R, Tensor hidden_TD)
    {
        if (gradient_RD is null || gradient_RD.size(0) == hidden_TD.size(0))
        {
            return gradient_RD;
        }
        Tensor all_TD = zeros(hidden_TD.shape, gradient_RD.dtype, gradient_RD.device);
        return all_TD.index_copy_(0, rows_R, gradient_RD);
    }

    /// <summary>The loss of the rows added so far and its gradients, those of hidden in hidden's dtype, that of the weight
    /// in float32: it is a sum over chunks.</summary>
    private sealed class Chunks(Tensor hidden_RD, Tensor weight_VD, Tensor labels_R, float scale, bool wantsHidden, bool wantsWeight)
    {
        private readonly bool _standsIn = TorchOps.StandIn(hidden_RD);

        /// <summary>float64, on the device.</summary>
        public Tensor Loss { get; } = zeros([], float64, hidden_RD.device);

        public Tensor? DHidden_RD { get; } = wantsHidden ? empty(hidden_RD.shape, hidden_RD.dtype, hidden_RD.device) : null;

        public Tensor? DWeight_VD { get; } = wantsWeight ? labels_R.size(0) == 0 ? zeros(weight_VD.shape, float32, weight_VD.device) : empty(weight_VD.shape, float32, weight_VD.device) : null;

        public void Add(long begin, long count)
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor hidden_CD = hidden_RD.narrow(0, begin, count);
            Tensor logits_CV = Matmul.Forward(hidden_CD, weight_VD);
            Tensor labels_C = labels_R.narrow(0, begin, count);
            Loss.add_(_standsIn ? TorchOps.CrossEntropy(logits_CV, labels_C, wantsHidden || wantsWeight) : CrossEntropy(logits_CV, labels_C));
            if (DHidden_RD is not null)
            {
                Matmul.InputGradient(logits_CV, weight_VD, DHidden_RD.narrow(0, begin, count));
            }
            if (DWeight_VD is not null)
            {
                Matmul.WeightGradient(logits_CV, hidden_CD, DWeight_VD, accumulate: begin > 0);
            }
        }

        /// <summary>Call after the last chunk.</summary>
        public void Finish()
        {
            // Our kernel has scaled each row already.
            if (_standsIn)
            {
                DHidden_RD?.mul_(scale);
                DWeight_VD?.mul_(scale);
            }
        }

        // Overwrites the logits by the loss's gradient where one is wanted.
        private Tensor CrossEntropy(Tensor logits_CV, Tensor labels_C)
        {
            Tensor loss_C = empty(logits_CV.size(0), float32, logits_CV.device);
            var args = new tn_cross_entropy_args
            {
                device = logits_CV.KernelDevice(),
                dtype = logits_CV.KernelDtype(),
                write_gradient = wantsHidden || wantsWeight ? 1 : 0,
                rows = logits_CV.size(0),
                vocabulary = logits_CV.size(1),
                logits_CV = logits_CV.Elements(),
                logits_stride = logits_CV.size(1),
                labels_C = labels_C.Elements(),
                loss_C = loss_C.Elements(),
                gradient_scale = scale,
            };
            KernelException.ThrowIfFailed(TrainerKernels.tn_cross_entropy(args, logits_CV.KernelStream()));
            if (args.device == KernelDevice.Cuda)
            {
                return loss_C.sum(float64);
            }

            // In order, so that the sum does not depend on the number of threads.
            double sum = 0;
            foreach (float loss in loss_C.data<float>())
            {
                sum += loss;
            }

            return tensor(sum);
        }
    }
}
