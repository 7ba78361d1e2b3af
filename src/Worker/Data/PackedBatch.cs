namespace Trainer.Worker.Data;

/// <summary>One micro-batch: whole documents behind each other, no padding. T tokens, S documents.</summary>
public sealed record PackedBatch
{
    public const long Ignored = -100;

    /// <summary>int[T]</summary>
    public required int[] Tokens { get; init; }

    /// <summary>
    /// long[T]: the token that follows inside the document; -100 where that is not trained and at each document's last token.
    /// </summary>
    public required long[] Labels { get; init; }

    /// <summary>int[T]: from 0 in each document.</summary>
    public required int[] Positions { get; init; }

    /// <summary>int[S + 1]: where documents begin; the last is T.</summary>
    public required int[] CuSeqlens { get; init; }

    /// <summary>int[S]: indices into the data set.</summary>
    public required int[] Documents { get; init; }

    /// <summary>Labels that are not -100.</summary>
    public required int TrainedTokens { get; init; }
}

/// <summary>One optimizer step, planned over all ranks; the plan is the same for any number of ranks.</summary>
/// <param name="Batches">The micro-batches of one rank; empty ones only where documents are fewer.</param>
/// <param name="NextCursor">The global sample index at which the next step begins.</param>
/// <param name="Tokens">Of all ranks' batches.</param>
/// <param name="TrainedTokens">Of all ranks' batches: what the step's loss is divided by.</param>
public sealed record StepBatches(IReadOnlyList<PackedBatch> Batches, long NextCursor, long Tokens, long TrainedTokens);
