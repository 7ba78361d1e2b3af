using System.Collections.Immutable;
using System.Text.Json.Serialization;
using Trainer.Contracts;

namespace Trainer.Cli;

/// <summary>What <c>validate -o json</c> and <c>submit --dry-run -o json</c> print.</summary>
internal sealed record ValidationReport
{
    public int SchemaVersion { get; init; } = 1;
    public required bool Valid { get; init; }

    /// <summary>Each as it is shown to a person.</summary>
    public required IReadOnlyList<string> Problems { get; init; }
}

/// <summary>What <c>events -o json</c> prints.</summary>
internal sealed record EventList
{
    public int SchemaVersion { get; init; } = 1;
    public required JobId Job { get; init; }
    public required ImmutableArray<HistoryEntry> Events { get; init; }
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, WriteIndented = true)]
[JsonSerializable(typeof(ValidationReport))]
[JsonSerializable(typeof(EventList))]
internal sealed partial class CliJson : JsonSerializerContext;
