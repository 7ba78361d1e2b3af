namespace Trainer.Coordinator;

/// <summary>Host knobs of a coordinator. Nothing about what is trained.</summary>
public sealed record CoordinatorOptions
{
    /// <summary>Replaces "trainer rank"; --job-dir, --attempt and --socket follow it. A hook for tests: TRAINER_RANK_COMMAND.</summary>
    public IReadOnlyList<string>? RankCommand { get; init; }

    /// <summary>Between two looks at a job.</summary>
    public TimeSpan Poll { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>A rank that lives but is silent for so long is hung.</summary>
    public TimeSpan Silence { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>What a rank that was asked to stop may take for its last checkpoint.</summary>
    public TimeSpan StopGrace { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>What a rank may take to exit after it has written its result.</summary>
    public TimeSpan ExitGrace { get; init; } = TimeSpan.FromSeconds(10);

    public static CoordinatorOptions FromEnvironment() => new()
    {
        RankCommand = Environment.GetEnvironmentVariable("TRAINER_RANK_COMMAND") is { Length: > 0 } command ? [command] : null,
    };
}
