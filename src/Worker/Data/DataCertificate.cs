using System.Text.Json;
using System.Text.Json.Serialization;

namespace Trainer.Worker.Data;

/// <summary>What a prepared data set holds and what became of the rest, for a person to check.</summary>
public sealed record DataCertificate
{
    /// <summary>SHA-256 of the sources, the tokenizer and the data options.</summary>
    public required string Fingerprint { get; init; }

    /// <summary>Documents read; those kept are Documents - Dropped - WithoutTrainedTokens.</summary>
    public int Documents { get; init; }

    public int Kept { get; init; }

    /// <summary>Of kept documents.</summary>
    public long Tokens { get; init; }

    /// <summary>Tokens that give a loss.</summary>
    public long TrainedTokens { get; init; }

    public double TrainedShare { get; init; }

    /// <summary>Documents cut off at max_length.</summary>
    public int Truncated { get; init; }

    /// <summary>Documents left out because they are longer than max_length.</summary>
    public int Dropped { get; init; }

    /// <summary>Documents left out because no token of them would give a loss.</summary>
    public int WithoutTrainedTokens { get; init; }

    /// <summary>Kept documents whose tokens equal those of an earlier one.</summary>
    public int Duplicates { get; init; }

    /// <summary>Tokens of the longest document before it was cut off or dropped.</summary>
    public int Longest { get; init; }

    public override string ToString() => FormattableString.Invariant(
        $"{Kept} of {Documents} documents, {Tokens} tokens, {TrainedTokens} trained ({TrainedShare:P1}), {Truncated} truncated, ")
        + FormattableString.Invariant(
            $"{Dropped} dropped, {WithoutTrainedTokens} without trained tokens, {Duplicates} duplicates, longest {Longest}");

    public void Save(string path) =>
        File.WriteAllText(path, JsonSerializer.Serialize(this, DataJson.Default.DataCertificate) + "\n");

    /// <summary>Null when the file is missing or none of ours.</summary>
    public static DataCertificate? TryLoad(string path)
    {
        try
        {
            return File.Exists(path)
                ? JsonSerializer.Deserialize(File.ReadAllText(path), DataJson.Default.DataCertificate)
                : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    WriteIndented = true)]
[JsonSerializable(typeof(DataCertificate))]
internal sealed partial class DataJson : JsonSerializerContext;
