using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Attention;

/// <summary>
/// Attention written out with matrix products: softmax(q k^T * scale) v, causal, one document at a time. It materialises
/// the scores, so memory grows with the square of a document's length; the reference, and the last resort.
/// </summary>
public static class MathAttention
{
    /// <summary>Packed documents; see <see cref="AttentionBackend.Forward"/>.</summary>
    public static Tensor Forward(Tensor q_TNH, Tensor k_TMH, Tensor v_TMH, Tensor cuSeqlens, double scale, int window)
    {
        int[] offsets = cuSeqlens.data<int>().ToArray();
        var documents = new List<Tensor>();
        for (int i = 0; i + 1 < offsets.Length; i++)
        {
            int start = offsets[i], length = offsets[i + 1] - offsets[i];
            if (length > 0)
            {
                documents.Add(Forward(q_TNH.narrow(0, start, length), k_TMH.narrow(0, start, length), v_TMH.narrow(0, start, length), scale, window));
            }
        }

        return documents.Count == 1 ? documents[0] : cat(documents, 0);
    }

    /// <summary>One sequence whose last query sees the last key: q [Q, N, H], k and v [K, M, H], Q at most K.</summary>
    public static Tensor Forward(Tensor q_QNH, Tensor k_KMH, Tensor v_KMH, double scale, int window)
    {
        using DisposeScope scope = NewDisposeScope();
        long queries = q_QNH.shape[0], keys = k_KMH.shape[0];
        long group = q_QNH.shape[1] / k_KMH.shape[1];
        Tensor q_NQH = q_QNH.transpose(0, 1);
        Tensor k_NHK = Grouped(k_KMH, group).permute(1, 2, 0);
        Tensor v_NKH = Grouped(v_KMH, group).transpose(0, 1);
        Tensor scores_NQK = matmul(q_NQH, k_NHK) * scale;

        Tensor query = arange(queries, dtype: ScalarType.Int64, device: q_QNH.device).unsqueeze(1) + (keys - queries);
        Tensor key = arange(keys, dtype: ScalarType.Int64, device: q_QNH.device).unsqueeze(0);
        Tensor hidden = key > query;
        if (window >= 0)
        {
            hidden = hidden.logical_or(key < query - window);
        }

        Tensor weights = scores_NQK.masked_fill(hidden.unsqueeze(0), double.NegativeInfinity).softmax(-1);
        return matmul(weights, v_NKH).transpose(0, 1).contiguous().MoveToOuterDisposeScope();
    }

    /// <summary>Repeats each key/value head for the query heads that share it: [K, M, H] to [K, M * group, H].</summary>
    private static Tensor Grouped(Tensor x_KMH, long group)
    {
        if (group == 1)
        {
            return x_KMH;
        }

        long[] shape = x_KMH.shape;
        return x_KMH.unsqueeze(2).expand(shape[0], shape[1], group, shape[2]).reshape(shape[0], shape[1] * group, shape[2]);
    }
}
