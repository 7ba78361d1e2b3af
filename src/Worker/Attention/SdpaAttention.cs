using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Attention;

/// <summary>libtorch's scaled_dot_product_attention, one document at a time.</summary>
internal static class SdpaAttention
{
    private static readonly Version s_first = new(2, 0);

    /// <summary>From here on key/value heads need not be repeated.</summary>
    private static readonly Version s_grouped = new(2, 5);

    private static readonly Lazy<bool> s_isGrouped = new(() => Version.TryParse(loaded_version, out Version? version) && version >= s_grouped);

    public static IReadOnlyList<Func<AttentionRequest, string?>> Refusals { get; } =
    [
        request => request.Libtorch >= s_first ? null : $"libtorch {request.Libtorch} has no scaled_dot_product_attention ({s_first} and later have)",
        request => request.SlidingWindow ? "sliding window" : null,
        request => request is { IsOnGpu: true, Deterministic: true, Dtype: ScalarType.Float32 }
            ? "training.deterministic: its float32 kernels on GPUs have no deterministic backward pass"
            : null,
    ];

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
                documents.Add(Document(q_TNH.narrow(0, start, length), k_TMH.narrow(0, start, length), v_TMH.narrow(0, start, length), scale));
            }
        }

        return documents.Count == 1 ? documents[0] : cat(documents, 0);
    }

    /// <summary>The name of the kernels that libtorch takes for such a request.</summary>
    public static string Kernels(AttentionRequest request)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = zeros([1, 1, 128, request.HeadDim], request.Dtype, request.Device).requires_grad_(true);
        return Fused.AttentionKernels(x, x, x, is_causal: true);
    }

    private static Tensor Document(Tensor q_TNH, Tensor k_TMH, Tensor v_TMH, double scale)
    {
        Tensor q = q_TNH.transpose(0, 1).unsqueeze(0), k = k_TMH.transpose(0, 1).unsqueeze(0), v = v_TMH.transpose(0, 1).unsqueeze(0);
        // The mem-efficient kernels, which float32 takes, know no groups.
        if (s_isGrouped.Value && q_TNH.dtype != ScalarType.Float32)
        {
            return Fused.GroupedAttention(q, k, v, scale).squeeze(0).transpose(0, 1);
        }

        long group = q_TNH.shape[1] / k_TMH.shape[1];
        double rescale = scale * Math.Sqrt(q_TNH.shape[2]);
        return nn.functional.scaled_dot_product_attention(q * rescale, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), is_casual: true)
            .squeeze(0).transpose(0, 1);
    }
}
