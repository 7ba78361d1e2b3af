using System.Text.Json.Serialization;

namespace Trainer.Cli;

/// <summary>What <c>validate -o json</c> and <c>submit --dry-run -o json</c> print.</summary>
internal sealed record ValidationReport
{
    public int SchemaVersion { get; init; } = 1;
    public required bool Valid { get; init; }

    /// <summary>Each as it is shown to a person.</summary>
    public required IReadOnlyList<string> Problems { get; init; }

    /// <summary>What the job's log will warn of.</summary>
    public required IReadOnlyList<string> Warnings { get; init; }
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, WriteIndented = true)]
[JsonSerializable(typeof(ValidationReport))]
internal sealed partial class CliJson : JsonSerializerContext;
