using Orleans;

namespace Trainer.Contracts;

/// <summary>What a rank writes and its agent sends to a coordinator elsewhere. Metrics and samples are rank 0's.</summary>
[GenerateSerializer, Alias("trainer.log-stream")]
public enum LogStream { Stdout, Stderr, Metrics, Samples, Stacks }

/// <summary>How many bytes of a stream the coordinator has.</summary>
public sealed record LogLength
{
    /// <summary>Of one request, in bytes.</summary>
    public const int MaxPiece = 1 << 20;

    public required long Length { get; init; }
}

/// <summary>How many bytes of a stream lie in the job's store.</summary>
[GenerateSerializer, Immutable, Alias("trainer.stored-stream")]
public sealed record StoredStream
{
    [Id(0)] public required RankName Rank { get; init; }
    [Id(1)] public required LogStream Stream { get; init; }
    [Id(2)] public required long Length { get; init; }
}
