using Trainer.Contracts;

namespace Trainer.Worker.Attention;

/// <summary>Chooses the attention of a job and says why. A backend that was named and can't run is an error, never a fallback.</summary>
public static class AttentionSelector
{
    private static readonly AttentionBackend[] Preference = [AttentionBackend.Flash, AttentionBackend.Sdpa, AttentionBackend.Math];

    /// <exception cref="JobInputException">The backend that the job names can't run.</exception>
    public static AttentionChoice Choose(AttentionKind kind, AttentionRequest request)
    {
        var refused = new List<string>();
        foreach (AttentionBackend backend in Preference)
        {
            if (kind != AttentionKind.Auto && backend.Kind != kind)
            {
                continue;
            }

            if (backend.Refusal(request) is not { } reason)
            {
                return new AttentionChoice(backend, Explain(backend, refused));
            }

            refused.Add($"{Name(backend.Kind)}: {reason}");
            if (backend.Kind == kind)
            {
                throw new JobInputException($"model.attention: {Name(kind)} can't run here: {reason}; set it to auto to take the best that can");
            }
        }

        throw new System.Diagnostics.UnreachableException("math attention runs everywhere");
    }

    private static string Explain(AttentionBackend backend, List<string> refused)
    {
        string text = $"attention: {Name(backend.Kind)}";
        if (refused.Count > 0)
        {
            text += $" ({string.Join("; ", refused)}; the cost: {backend.Cost})";
        }

        return text;
    }

    private static string Name(AttentionKind kind) => kind.ToString().ToLowerInvariant();
}

/// <param name="Explanation">One line for the log: what runs, why each better one was refused, what that costs.</param>
public sealed record AttentionChoice(AttentionBackend Backend, string Explanation);
