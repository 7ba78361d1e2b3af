namespace Trainer.Worker.Reports;

/// <summary>What the model said at a step: a line of samples.jsonl.</summary>
public sealed record SampleRecord : StepRecord
{
    public required string Prompt { get; init; }

    public required string Text { get; init; }
}
