using System.Globalization;
using System.Text.RegularExpressions;

namespace Trainer.Worker.Checkpoints;

/// <summary>
/// Names in a checkpoint store: <c>step-00000120/attempt-2/rank-0.safetensors</c> and the commit point
/// <c>step-00000120/manifest.json</c>. A quarantined checkpoint stays as it is beside its marker <c>quarantined.json</c>; when
/// the step is trained and saved again, its commit point is the next generation, <c>manifest-2.json</c>.
/// </summary>
internal static partial class CheckpointPath
{
    public const string AllSteps = "step-";

    private const string ClaimName = "claim";

    public static string Step(long step) => string.Create(CultureInfo.InvariantCulture, $"step-{step:D8}");

    /// <summary>Whether a folder of this name holds one step.</summary>
    public static bool IsStep(string name) => name.StartsWith(AllSteps, StringComparison.Ordinal) && name[AllSteps.Length..].All(char.IsAsciiDigit);

    public static string File(long step, int attempt, string name) => $"{Step(step)}/attempt-{attempt}/{name}";

    /// <summary>Written by an attempt before it trains: whoever has a lower number must stop.</summary>
    public static string Claim(long step, int attempt) => File(step, attempt, ClaimName);

    public static bool IsClaim(string path) => path.EndsWith("/" + ClaimName, StringComparison.Ordinal);

    public static string Shard(int rank) => $"rank-{rank}.safetensors";

    public static string Manifest(long step, int generation) => $"{Step(step)}/manifest{Suffix(generation)}.json";

    public static string Quarantine(long step, int generation) => $"{Step(step)}/quarantined{Suffix(generation)}.json";

    /// <summary>Null: not a path of ours.</summary>
    public static CheckpointPathParts? Parse(string path)
    {
        Match match = Pattern().Match(path);
        if (!match.Success || !long.TryParse(match.Groups["step"].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out long step))
        {
            return null;
        }

        int? attempt = Number(match.Groups["attempt"]);
        int? generation = match.Groups["kind"].Success ? Number(match.Groups["generation"]) ?? 1 : null;
        return new CheckpointPathParts(step, attempt, generation, match.Groups["kind"].Value == "quarantined");
    }

    private static string Suffix(int generation) => generation == 1 ? "" : string.Create(CultureInfo.InvariantCulture, $"-{generation}");

    private static int? Number(Group group) =>
        group.Success && int.TryParse(group.ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : null;

    [GeneratedRegex(@"^step-(?<step>\d{8,18})/(attempt-(?<attempt>\d{1,9})/.+|(?<kind>manifest|quarantined)(-(?<generation>\d{1,9}))?\.json)$")]
    private static partial Regex Pattern();
}

/// <summary>A file of an attempt (Attempt set), or a manifest or its quarantine marker (Generation set).</summary>
internal readonly record struct CheckpointPathParts(long Step, int? Attempt, int? Generation, bool IsQuarantine);
