using System.Globalization;
using Trainer.Contracts;

namespace Trainer.Cli;

/// <summary>Progress for a person.</summary>
internal static class Progress
{
    public static string Line(JobView job)
    {
        var parts = new List<string>();
        if (job.Phase is not RankPhase.Training and { } phase)
        {
            parts.Add(job.Message ?? Spelling.Of(phase));
        }
        if (job.Step > 0 || job.Steps > 0)
        {
            parts.Add(job.Steps > 0 ? $"step {job.Step}/{job.Steps}" : $"step {job.Step}");
        }
        Add(job.Loss, loss => $"loss {loss:0.0000}");
        Add(job.EvalLoss, loss => $"eval loss {loss:0.0000}");
        Add(job.TokensPerSecond, speed => $"{speed:0} tokens/s");
        Add(job.EtaSeconds, seconds => $"ETA {Span(seconds)}");
        return string.Join("  ", parts);

        void Add(double? value, Func<double, FormattableString> text)
        {
            if (value is { } known)
            {
                parts.Add(text(known).ToString(CultureInfo.InvariantCulture));
            }
        }
    }

    /// <summary>Such as 42s, 3m05s, 2h10m, 4d03h.</summary>
    public static string Span(double seconds)
    {
        var span = TimeSpan.FromSeconds(Math.Clamp(seconds, 0, 1e9));
        return span switch
        {
            { TotalMinutes: < 1 } => $"{span.Seconds}s",
            { TotalHours: < 1 } => $"{span.Minutes}m{span.Seconds:00}s",
            { TotalDays: < 1 } => $"{span.Hours}h{span.Minutes:00}m",
            _ => $"{(int)span.TotalDays}d{span.Hours:00}h",
        };
    }
}
