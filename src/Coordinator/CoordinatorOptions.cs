using System.Globalization;

namespace Trainer.Coordinator;

/// <summary>Host knobs of a coordinator. Nothing about what is trained.</summary>
public sealed record CoordinatorOptions
{
    /// <summary>Between two looks at a job that has an attempt.</summary>
    public TimeSpan Poll { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>Between two looks at a job that waits: what it waits for wakes it anyway. As many times as long as there are five hundreds of jobs before it, up to twelve.</summary>
    public TimeSpan QueuedPoll { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>A rank whose agent answers but that is silent itself for so long hangs.</summary>
    public TimeSpan Silence { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>Ranks that train together, and of which none moves or works for so long, hang.</summary>
    public TimeSpan Hang { get; init; } = TimeSpan.FromSeconds(45);

    /// <summary>The same while one of them uses the processor: in an endless loop, or in a step that is that long.</summary>
    public TimeSpan WorkingHang => 10 * Hang;

    /// <summary>Of the time since it last moved, what a rank that works uses of a core at least. Waiting, with its heartbeats, uses less than a hundredth.</summary>
    public double WorkingShare { get; init; } = 0.03;

    /// <summary>What taking the stacks of hung ranks may take.</summary>
    public TimeSpan StacksTake { get; init; } = TimeSpan.FromSeconds(15);

    /// <summary>A node that does not report for so long is said to be unreachable; its ranks may go on.</summary>
    public TimeSpan NodeSilence { get; init; } = TimeSpan.FromSeconds(6);

    /// <summary>A node that does not report for so long is lost: its ranks are started elsewhere, and fenced where they were.</summary>
    public TimeSpan NodeLease { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>A node may take so long until it has started a rank.</summary>
    public TimeSpan StartTakes { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>What a rank that was asked to stop may take for its last checkpoint.</summary>
    public TimeSpan StopGrace { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>After one rank ended, what the others may take to tell why.</summary>
    public TimeSpan CauseTakes { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>The same, when all that have ended have only lost another.</summary>
    public TimeSpan CauseTakesLongest { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>Where jobs that name no checkpoint store keep theirs, each in a folder of its own; null: on the node of rank 0.</summary>
    public string? Store { get; init; }

    /// <summary>
    /// Opens the checkpoint of a step in a store for a download, as something that writes a tar archive: the coordinator itself knows no
    /// stores. Throws <see cref="Trainer.Contracts.ConfigException"/> with the reason when it cannot be had. Null: nothing is downloaded here.
    /// </summary>
    public Func<string, long, CancellationToken, Task<Func<Stream, CancellationToken, Task>>>? OpenCheckpoint { get; init; }

    /// <summary>
    /// Opens a job's store for what its ranks write; throws with the reason when that cannot be. It returns null when the store is a
    /// directory that is not on this machine. Null: what ranks write stays in the home.
    /// </summary>
    public Func<string, LogStore?>? OpenLogStore { get; init; }

    /// <summary>Between two looks at what ranks wrote since.</summary>
    public TimeSpan LogPeriod { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>Log lines are JSON objects.</summary>
    public bool JsonLog { get; init; }

    /// <summary>TRAINER_HANG_SECONDS changes <see cref="Hang"/>.</summary>
    public static CoordinatorOptions FromEnvironment() =>
        double.TryParse(Environment.GetEnvironmentVariable("TRAINER_HANG_SECONDS"), CultureInfo.InvariantCulture, out double seconds)
            ? new() { Hang = TimeSpan.FromSeconds(seconds) }
            : new();
}
