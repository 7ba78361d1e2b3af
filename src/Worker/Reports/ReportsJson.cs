using System.Text.Json.Serialization;

namespace Trainer.Worker.Reports;

/// <summary>The JSON of metrics.jsonl and samples.jsonl.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals)]
[JsonSerializable(typeof(MetricsRecord))]
[JsonSerializable(typeof(SampleRecord))]
internal sealed partial class ReportsJson : JsonSerializerContext;
