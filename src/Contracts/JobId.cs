using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.RegularExpressions;
using Orleans;

namespace Trainer.Contracts;

/// <summary>Names one job for ever: its name and four random characters, such as demo-7k2f. Safe as a file name.</summary>
[GenerateSerializer, Immutable, Alias("trainer.job-id")]
[JsonConverter(typeof(JobIdJsonConverter))]
public readonly partial record struct JobId([property: Id(0)] string Value)
{
    private const string Letters = "abcdefghijkmnpqrstuvwxyz23456789";

    public static JobId New(string name) => new($"{name}-{RandomNumberGenerator.GetString(Letters, 4)}");

    public static bool TryParse([NotNullWhen(true)] string? text, out JobId id)
    {
        bool isId = text is not null && Pattern().IsMatch(text);
        id = isId ? new JobId(text!) : default;
        return isId;
    }

    public override string ToString() => Value;

    [GeneratedRegex(@"^[a-z0-9][a-z0-9._-]{0,79}\z")]
    private static partial Regex Pattern();
}

/// <summary>Public, because generated JSON of other assemblies needs it.</summary>
public sealed class JobIdJsonConverter : JsonConverter<JobId>
{
    public override JobId Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        JobId.TryParse(reader.GetString(), out JobId id) ? id : throw new JsonException("not a job id");

    public override void Write(Utf8JsonWriter writer, JobId value, JsonSerializerOptions options) => writer.WriteStringValue(value.Value);
}
