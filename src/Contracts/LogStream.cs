namespace Trainer.Contracts;

/// <summary>What a rank writes and its agent sends to a coordinator elsewhere. Metrics and samples are rank 0's.</summary>
public enum LogStream { Stdout, Stderr, Metrics, Samples, Stacks }

/// <summary>How many bytes of a stream the coordinator has.</summary>
public sealed record LogLength
{
    /// <summary>Of one request, in bytes.</summary>
    public const int MaxPiece = 1 << 20;

    public required long Length { get; init; }
}
