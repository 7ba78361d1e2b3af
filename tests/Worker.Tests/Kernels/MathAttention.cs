using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Kernels;

/// <summary>Attention as it is defined, sequence by sequence, in the dtype of its inputs.</summary>
internal static class MathAttention
{
    public static Tensor Run(Tensor q_TNH, Tensor k_TMH, Tensor v_TMH, int[] cuSeqlens, double scale, int window)
    {
        long group = q_TNH.size(1) / k_TMH.size(1);
        var outputs = new List<Tensor>();
        for (int s = 0; s + 1 < cuSeqlens.Length; s++)
        {
            int begin = cuSeqlens[s], length = cuSeqlens[s + 1] - begin;
            if (length == 0)
            {
                continue;
            }
            Tensor q_NTH = q_TNH.narrow(0, begin, length).transpose(0, 1);
            Tensor k_NTH = k_TMH.narrow(0, begin, length).repeat_interleave(group, 1).transpose(0, 1);
            Tensor v_NTH = v_TMH.narrow(0, begin, length).repeat_interleave(group, 1).transpose(0, 1);
            Tensor scores_NTT = q_NTH.matmul(k_NTH.transpose(1, 2)) * scale;
            Tensor hidden_TT = ones(length, length).tril().logical_not();
            if (window >= 0)
            {
                hidden_TT = hidden_TT.logical_or(ones(length, length).tril(-window - 1).to(@bool));
            }
            outputs.Add(scores_NTT.masked_fill(hidden_TT, double.NegativeInfinity).softmax(-1).matmul(v_NTH).transpose(0, 1));
        }
        return cat(outputs, 0);
    }
}
