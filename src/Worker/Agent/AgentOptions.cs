using System.Collections.Immutable;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>What an agent is told at its start.</summary>
public sealed record AgentOptions
{
    /// <summary>Where its ranks keep their files; one agent a home.</summary>
    public required TrainerHome Home { get; init; }

    /// <summary>http(s)://host:port, or the path of the coordinator's Unix socket.</summary>
    public required string Coordinator { get; init; }

    /// <summary>Bearer token for the coordinator.</summary>
    public string? Token { get; init; }

    /// <inheritdoc cref="NodeReport.Node"/>
    public required string Node { get; init; }

    public string Pool { get; init; } = "default";

    /// <inheritdoc cref="NodeReport.Host"/>
    public string Host { get; init; } = "127.0.0.1";

    /// <summary>CUDA devices, as CUDA_VISIBLE_DEVICES names them, one for each slot; empty: the slots are CPU slots.</summary>
    public ImmutableArray<string> Devices { get; init; } = [];

    /// <summary>How many ranks may run at once.</summary>
    public int Slots { get; init; } = 1;

    public SlotKind Kind => Devices.IsEmpty ? SlotKind.Cpu : SlotKind.Cuda;

    /// <summary>Replaces "trainer rank"; --job-dir and the other options follow it. A hook for tests: TRAINER_RANK_COMMAND.</summary>
    public IReadOnlyList<string>? RankCommand { get; init; } = RankCommandFromEnvironment;

    /// <summary>Between two reports when nothing happens.</summary>
    public TimeSpan Period { get; init; } = TimeSpan.FromSeconds(1);

    public ILoggerFactory Logs { get; init; } = NullLoggerFactory.Instance;

    public TimeProvider Time { get; init; } = TimeProvider.System;

    /// <summary>Logs are sent to a coordinator elsewhere; one on the same home reads the files.</summary>
    public bool ShipsLogs => Coordinator != Home.Socket;

    /// <summary>A slot for each CUDA device, or one CPU slot when there are none; the token of TRAINER_TOKEN.</summary>
    /// <param name="slots">Another number of slots.</param>
    /// <exception cref="ConfigException">More slots than CUDA devices.</exception>
    public static AgentOptions OfThisMachine(TrainerHome home, string coordinator, string node, int? slots = null)
    {
        ImmutableArray<string> devices = CudaDevices.Find();
        int count = slots ?? Math.Max(1, devices.Length);
        return devices.Length == 0 || count <= devices.Length
            ? new AgentOptions
            {
                Home = home,
                Coordinator = coordinator,
                Token = Environment.GetEnvironmentVariable("TRAINER_TOKEN"),
                Node = node,
                Devices = [.. devices.Take(count)],
                Slots = count,
            }
            : throw new ConfigException($"--slots: {count} ranks cannot run on {devices.Length} CUDA devices; give at most {devices.Length}, or set CUDA_VISIBLE_DEVICES= for CPU slots");
    }

    /// <summary>Without the token.</summary>
    public override string ToString() => $"agent {Node} of {Coordinator}";

    private static string[]? RankCommandFromEnvironment =>
        Environment.GetEnvironmentVariable("TRAINER_RANK_COMMAND") is { Length: > 0 } command ? [command] : null;
}
