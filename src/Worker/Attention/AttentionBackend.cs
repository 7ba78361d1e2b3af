using Trainer.Contracts;
using Trainer.Worker.Kernels;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Attention;

/// <summary>One way to compute causal attention over packed documents.</summary>
/// <param name="Cost">What running this instead of our own kernels costs, for the log.</param>
/// <param name="Refusals">Each returns why the backend can't run a request, or null.</param>
public sealed record AttentionBackend(
    AttentionKind Kind,
    string Cost,
    AttentionBackend.ForwardFunction Forward,
    IReadOnlyList<Func<AttentionRequest, string?>> Refusals)
{
    /// <summary>
    /// q [T, N, H], k and v [T, M, H] (N a multiple of M; last dimension contiguous) to out [T, N, H]. A token attends to
    /// itself and the tokens before it in its own document, at most <c>window</c> of them unless it is -1.
    /// </summary>
    /// <param name="cuSeqlens">int32 [S + 1] on the CPU: where each document starts; the last entry is T.</param>
    public delegate Tensor ForwardFunction(Tensor q_TNH, Tensor k_TMH, Tensor v_TMH, Tensor cuSeqlens, double scale, int window);

    public static AttentionBackend Flash { get; } = new(
        AttentionKind.Flash,
        "",
        Ops.FlashAttention,
        [
            request => request.Dtype is ScalarType.Float32 or ScalarType.BFloat16 ? null : $"dtype {request.Dtype} (float32 or bfloat16 needed)",
            request => request.HeadDim is >= 1 and <= 256 ? null : $"head_dim {request.HeadDim} (at most 256)",
            request => request.Device.type == DeviceType.CPU ? null : $"device {request.Device.type}: the worker runs flash on the CPU only so far",
        ]);

    public static AttentionBackend Sdpa { get; } = new(
        AttentionKind.Sdpa,
        "one call per document, no packing",
        ScaledDotProduct,
        [
            _ => nn.functional.has_scaled_dot_product_attention ? null : $"libtorch {loaded_version} has no scaled_dot_product_attention (2.0 and later have)",
            request => request.SlidingWindow ? "sliding window" : null,
        ]);

    public static AttentionBackend Math { get; } = new(
        AttentionKind.Math,
        "memory grows with the square of the document length",
        MathAttention.Forward,
        []);

    /// <summary>The first reason why this backend can't run the request, or null.</summary>
    public string? Refusal(AttentionRequest request) => Refusals.Select(refuses => refuses(request)).FirstOrDefault(reason => reason is not null);

    private static Tensor ScaledDotProduct(Tensor q_TNH, Tensor k_TMH, Tensor v_TMH, Tensor cuSeqlens, double scale, int window)
    {
        int[] offsets = cuSeqlens.data<int>().ToArray();
        double rescale = scale * System.Math.Sqrt(q_TNH.shape[2]);
        long group = q_TNH.shape[1] / k_TMH.shape[1];
        var documents = new List<Tensor>();
        for (int i = 0; i + 1 < offsets.Length; i++)
        {
            int start = offsets[i], length = offsets[i + 1] - offsets[i];
            if (length == 0)
            {
                continue;
            }

            Tensor q = (q_TNH.narrow(0, start, length) * rescale).transpose(0, 1).unsqueeze(0);
            Tensor k = k_TMH.narrow(0, start, length).repeat_interleave(group, 1).transpose(0, 1).unsqueeze(0);
            Tensor v = v_TMH.narrow(0, start, length).repeat_interleave(group, 1).transpose(0, 1).unsqueeze(0);
            documents.Add(nn.functional.scaled_dot_product_attention(q, k, v, is_casual: true).squeeze(0).transpose(0, 1));
        }

        return cat(documents, 0);
    }
}

/// <summary>What a job asks of its attention.</summary>
public sealed record AttentionRequest(Device Device, ScalarType Dtype, int HeadDim, bool SlidingWindow);
