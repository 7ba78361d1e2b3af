using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;

namespace Trainer.Contracts;

/// <summary>A job as JSON: the config.json of its folder.</summary>
public static class JobConfigJson
{
    // By reflection: generated code would replace the defaults of init properties that the text leaves out by zeros.
    internal static JsonSerializerOptions Options { get; } = new(ContractsJson.Default.Options)
    {
        TypeInfoResolver = new DefaultJsonTypeInfoResolver(),
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    /// <summary>Canonical: every key in declaration order, so equal jobs give equal texts.</summary>
    public static string Write(JobConfig job) => JsonSerializer.Serialize(job, Options);

    /// <exception cref="JsonException">Not the JSON of a job.</exception>
    public static JobConfig Read(string json) =>
        JsonSerializer.Deserialize<JobConfig>(json, Options) ?? throw new JsonException("the job is null");

    /// <summary>Reads a job's config.json.</summary>
    public static JobConfig Load(string path) => Read(File.ReadAllText(path));

    internal sealed class Converter : JsonConverter<JobConfig>
    {
        public override JobConfig? Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
            JsonSerializer.Deserialize<JobConfig>(ref reader, Options);

        public override void Write(Utf8JsonWriter writer, JobConfig value, JsonSerializerOptions options) =>
            JsonSerializer.Serialize(writer, value, Options);
    }
}
