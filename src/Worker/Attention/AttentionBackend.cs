using Trainer.Contracts;
using Trainer.Worker.Kernels;
using static TorchSharp.torch;

namespace Trainer.Worker.Attention;

/// <summary>One way to compute causal attention over packed documents.</summary>
/// <param name="Cost">What running this instead of the better ones costs, for the log.</param>
/// <param name="Refusals">Each returns why the backend can't run a request, or null.</param>
public sealed record AttentionBackend(
    AttentionKind Kind,
    string Name,
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

    /// <summary>The same bits in every run.</summary>
    public bool IsDeterministic { get; private init; } = true;

    /// <summary>Our kernels, and the fastest. The backward pass adds up in any order: dq differs between runs in its last bits.</summary>
    public static AttentionBackend FlashInAnyOrder { get; } = new(
        AttentionKind.Flash,
        "flash, in any order",
        "",
        (q_TNH, k_TMH, v_TMH, cuSeqlens, scale, window) => Ops.FlashAttention(q_TNH, k_TMH, v_TMH, cuSeqlens, scale, window, deterministic: false),
        FlashRefusals.InAnyOrder) { IsDeterministic = false };

    /// <summary>Our kernels, with the same bits in every run.</summary>
    public static AttentionBackend Flash { get; } = new(
        AttentionKind.Flash,
        "flash",
        "a backward pass of attention that takes up to a third longer on a GPU",
        (q_TNH, k_TMH, v_TMH, cuSeqlens, scale, window) => Ops.FlashAttention(q_TNH, k_TMH, v_TMH, cuSeqlens, scale, window),
        FlashRefusals.OnAnyDevice);

    public static AttentionBackend Sdpa { get; } = new(
        AttentionKind.Sdpa,
        "sdpa",
        "one call per document instead of one for all, and slower kernels",
        SdpaAttention.Forward,
        SdpaAttention.Refusals);

    public static AttentionBackend Math { get; } = new(
        AttentionKind.Math,
        "math",
        "memory grows with the square of the document length",
        MathAttention.Forward,
        []);

    /// <summary>The first reason why this backend can't run the request, or null.</summary>
    public string? Refusal(AttentionRequest request) => Refusals.Select(refuses => refuses(request)).FirstOrDefault(reason => reason is not null);
}
