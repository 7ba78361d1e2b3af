using System.Text.Json;
using System.Text.Json.Serialization;

namespace Trainer.Contracts;

/// <summary>The one JSON of files and wire: snake_case, enums as in YAML, unknown members refused.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true,
    WriteIndented = true,
    Converters = [typeof(SpelledEnumConverter)])]
[JsonSerializable(typeof(RankReport))]
[JsonSerializable(typeof(RankReply))]
[JsonSerializable(typeof(RankResult))]
[JsonSerializable(typeof(JobView))]
[JsonSerializable(typeof(JobList))]
[JsonSerializable(typeof(SubmitRequest))]
[JsonSerializable(typeof(CoordinatorInfo))]
[JsonSerializable(typeof(NodeReport))]
[JsonSerializable(typeof(NodeOrders))]
[JsonSerializable(typeof(LogLength))]
[JsonSerializable(typeof(EventList))]
[JsonSerializable(typeof(CheckpointList))]
[JsonSerializable(typeof(CheckpointVerdict))]
[JsonSerializable(typeof(ApiError))]
[JsonSerializable(typeof(NodeView))]
[JsonSerializable(typeof(NodeList))]
[JsonSerializable(typeof(PriorityRequest))]
[JsonSerializable(typeof(PoolList))]
[JsonSerializable(typeof(PoolView))]
[JsonSerializable(typeof(QuotaRequest))]
[JsonSerializable(typeof(AccessEntry[]))]
[JsonSerializable(typeof(JobRow))]
[JsonSerializable(typeof(RankList))]
[JsonSerializable(typeof(MetricsSeries))]
[JsonSerializable(typeof(GrainList))]
[JsonSerializable(typeof(SessionRequest))]
[JsonSerializable(typeof(SessionView))]
[JsonSerializable(typeof(SignInCode))]
[JsonSerializable(typeof(DashboardRequest))]
[JsonSerializable(typeof(DashboardView))]
public sealed partial class ContractsJson : JsonSerializerContext
{
    /// <summary>The same on one line, as streams of records need it.</summary>
    public static ContractsJson OneLine => field ??= new ContractsJson(new JsonSerializerOptions(Default.Options) { WriteIndented = false });

    /// <summary>The same without spaces and nulls, for what a thousand nodes say and hear every second.</summary>
    public static ContractsJson Terse => field ??= new ContractsJson(new JsonSerializerOptions(OneLine.Options) { DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull });
}
