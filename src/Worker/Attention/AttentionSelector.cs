using Trainer.Contracts;

namespace Trainer.Worker.Attention;

/// <summary>Chooses the attention of a job and says why. A backend that was named and can't run is an error, never a fallback.</summary>
public static class AttentionSelector
{
    /// <exception cref="JobInputException">The backend that the job names can't run.</exception>
    public static AttentionChoice Choose(AttentionKind kind, AttentionRequest request)
    {
        var refused = new List<string>();
        foreach (AttentionBackend backend in Preference(request).Where(backend => kind == AttentionKind.Auto || backend.Kind == kind))
        {
            if (backend.Refusal(request) is not { } reason)
            {
                return new AttentionChoice(backend, Explain(backend, refused, request));
            }

            refused.Add($"{backend.Name}: {reason}");
        }

        throw new JobInputException($"model.attention: {kind.ToString().ToLowerInvariant()} can't run here: {string.Join("; ", refused.Select(WithoutName).Distinct())}; "
            + "set it to auto to take the best that can");
    }

    /// <summary>The best first. On the CPU our kernels have one order.</summary>
    private static IEnumerable<AttentionBackend> Preference(AttentionRequest request) => request.IsOnGpu
        ? [AttentionBackend.FlashInAnyOrder, AttentionBackend.Flash, AttentionBackend.Sdpa, AttentionBackend.Math]
        : [AttentionBackend.Flash, AttentionBackend.Sdpa, AttentionBackend.Math];

    private static string Explain(AttentionBackend backend, List<string> refused, AttentionRequest request)
    {
        string inside = backend == AttentionBackend.Sdpa && request.IsOnGpu && TorchSharp.torch.cuda.is_available() ? $" ({SdpaAttention.Kernels(request)})" : "";
        string text = $"attention: {backend.Name}{inside}";
        return refused.Count == 0 ? text : $"{text} (not {string.Join("; not ", refused)}; the cost: {backend.Cost})";
    }

    private static string WithoutName(string refusal) => refusal[(refusal.IndexOf(": ", StringComparison.Ordinal) + 2)..];
}

/// <param name="Explanation">One line for the log: what runs, why each better one was refused, what that costs.</param>
public sealed record AttentionChoice(AttentionBackend Backend, string Explanation);
