using System.Text.Json.Serialization;
using Trainer.Worker.Training;

namespace Trainer.Worker.Agent;

/// <summary>What makes a rank of a process that waits; a line of JSON on its standard input.</summary>
/// <param name="Environment">Variables for which room was kept: see <see cref="OwnEnvironment"/>.</param>
internal sealed record StandbyOrder(RankPlace Place, string Stdout, string Stderr, IReadOnlyDictionary<string, string> Environment);

[JsonSerializable(typeof(StandbyOrder))]
internal sealed partial class StandbyJson : JsonSerializerContext;
