namespace Trainer.Worker.Reports;

/// <summary>What is reported of one optimizer step: a line of metrics.jsonl.</summary>
public sealed record MetricsRecord : StepRecord
{
    /// <summary>Mean over the trained tokens of the step.</summary>
    public required double Loss { get; init; }

    /// <summary>Mean over the held-out data, when evaluated at this step.</summary>
    public double? EvalLoss { get; init; }

    public required double LearningRate { get; init; }

    /// <summary>Global L2 norm before clipping.</summary>
    public required double GradNorm { get; init; }

    /// <summary>Tokens since the start of the training.</summary>
    public required long Tokens { get; init; }

    public required double TokensPerSecond { get; init; }

    /// <summary>Model FLOPs utilisation of rank 0's device, from 0 to 1; null where the device's peak is unknown.</summary>
    public double? Mfu { get; init; }

    /// <summary>Since the start of this attempt.</summary>
    public required double Seconds { get; init; }

    public required DateTimeOffset Time { get; init; }
}
