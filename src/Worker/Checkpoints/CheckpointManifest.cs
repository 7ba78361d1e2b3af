using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Trainer.Worker.Checkpoints;

/// <summary>
/// What makes a checkpoint: written last, and only once, after every file that it names. Its own bytes are guarded by the
/// checksum that ends them.
/// </summary>
public sealed record CheckpointManifest
{
    public const int CurrentFormat = 2;

    /// <summary>Without <see cref="Inputs"/>.</summary>
    private const int OldestFormat = 1;

    public int FormatVersion { get; init; } = CurrentFormat;

    public required string Job { get; init; }

    /// <summary>Hash of everything that decides the training: checkpoints of equal fingerprint continue each other.</summary>
    public required string Fingerprint { get; init; }

    /// <summary>Optimizer steps done.</summary>
    public required long Step { get; init; }

    /// <summary>Which start of the job wrote it.</summary>
    public required int Attempt { get; init; }

    /// <summary>Ranks that wrote a shard each.</summary>
    public required int WorldSize { get; init; }

    /// <summary>Global index of the next sample.</summary>
    public required long Cursor { get; init; }

    public required long Seed { get; init; }

    public required DateTimeOffset Created { get; init; }

    /// <summary>Mean loss on the held-out data, if evaluated.</summary>
    public double? EvaluationLoss { get; init; }

    public required IReadOnlyList<CheckpointFile> Files { get; init; }

    /// <summary>Name to version of what computed it.</summary>
    public required IReadOnlyDictionary<string, string> Libraries { get; init; }

    /// <summary>The job's configuration, resolved.</summary>
    public required JsonElement Config { get; init; }

    /// <summary>A hash of each file that decides the training, by what it is to the job: tells which one is another. Null in older ones.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyDictionary<string, string>? Inputs { get; init; }

    /// <summary>The shard of a rank.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The checkpoint has fewer ranks.</exception>
    public CheckpointFile Shard(int rank)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(rank, WorldSize);
        return Files.First(file => file.Kind == CheckpointFileKind.Shard && file.Name == CheckpointPath.Shard(rank));
    }

    /// <summary>The attached file of that name, or null.</summary>
    public CheckpointFile? Attachment(string name) =>
        Files.FirstOrDefault(file => file.Kind == CheckpointFileKind.Attachment && file.Name == name);

    /// <summary>Indented JSON whose last property is the SHA-256 of all bytes before it.</summary>
    public byte[] ToBytes()
    {
        byte[] body = Body();
        return [.. body, .. Seal(body)];
    }

    /// <summary>The SHA-256 that ends <see cref="ToBytes"/>, as lower-case hex.</summary>
    public string Checksum() => Convert.ToHexStringLower(SHA256.HashData(Body()));

    /// <exception cref="InvalidDataException">Any byte differs from what was written, or it contradicts itself.</exception>
    /// <exception cref="JobInputException">A newer version of the program wrote it.</exception>
    public static CheckpointManifest Parse(ReadOnlySpan<byte> bytes)
    {
        int seal = bytes.LastIndexOf(SealStart);
        if (seal < 0 || !bytes[seal..].SequenceEqual(Seal(bytes[..seal])))
        {
            throw new InvalidDataException("the manifest is damaged: its checksum does not fit");
        }

        byte[] json = [.. bytes[..seal], .. "\n}"u8];
        RequireKnownFormat(json);
        try
        {
            CheckpointManifest manifest = JsonSerializer.Deserialize(json, CheckpointJson.Default.CheckpointManifest)
                ?? throw new InvalidDataException("the manifest is empty");
            manifest.RequireConsistent();
            return manifest;
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"the manifest is malformed: {e.Message}", e);
        }
    }

    private byte[] Body() => JsonSerializer.SerializeToUtf8Bytes(this, CheckpointJson.Default.CheckpointManifest)[..^"\n}".Length];

    private static ReadOnlySpan<byte> SealStart => ",\n  \"checksum\": \""u8;

    private static byte[] Seal(ReadOnlySpan<byte> body) =>
        [.. SealStart, .. Encoding.ASCII.GetBytes(Convert.ToHexStringLower(SHA256.HashData(body))), .. "\"\n}\n"u8];

    private static void RequireKnownFormat(byte[] json)
    {
        using JsonDocument document = JsonDocument.Parse(json);
        if (document.RootElement.GetProperty("format_version").GetInt32() is var version and (< OldestFormat or > CurrentFormat))
        {
            throw new JobInputException($"the checkpoint has format {version}, this program reads up to format {CurrentFormat}; update the program");
        }
    }

    private void RequireConsistent()
    {
        string folder = CheckpointPath.Step(Step) + "/";
        foreach (CheckpointFile file in Files)
        {
            if (!file.Path.StartsWith(folder, StringComparison.Ordinal) || !StorePath.IsValid(file.Path))
            {
                throw new InvalidDataException($"the manifest names '{file.Path}', which is not a file of step {Step}");
            }
        }

        for (int rank = 0; rank < WorldSize; rank++)
        {
            string shard = CheckpointPath.Shard(rank);
            if (Files.Count(file => file.Kind == CheckpointFileKind.Shard && file.Name == shard) != 1)
            {
                throw new InvalidDataException($"the manifest does not name one {shard}, of world size {WorldSize}");
            }
        }
    }
}

/// <summary>A file of a checkpoint; length in bytes, SHA-256 as lower-case hex.</summary>
public sealed record CheckpointFile(string Path, long Length, string Sha256, CheckpointFileKind Kind)
{
    /// <summary>Without the folders.</summary>
    [JsonIgnore]
    public string Name => Path[(Path.LastIndexOf('/') + 1)..];
}

/// <summary>Shard: a rank's tensors as safetensors. Attachment: any small file.</summary>
public enum CheckpointFileKind
{
    [JsonStringEnumMemberName("shard")]
    Shard,

    [JsonStringEnumMemberName("attachment")]
    Attachment,
}

/// <summary>Why a checkpoint is never used again.</summary>
internal sealed record QuarantineMarker(long Step, string Reason, DateTimeOffset Time);

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true,
    UseStringEnumConverter = true,
    WriteIndented = true,
    NewLine = "\n")]
[JsonSerializable(typeof(CheckpointManifest))]
[JsonSerializable(typeof(QuarantineMarker))]
internal sealed partial class CheckpointJson : JsonSerializerContext;
