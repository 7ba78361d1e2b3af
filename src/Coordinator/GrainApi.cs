using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Trainer.Contracts;
using Trainer.Coordinator.Telemetry;

namespace Trainer.Coordinator;

/// <summary>What the grains of this coordinator do.</summary>
internal sealed class GrainApi(GrainStatistics statistics)
{
    public void Map(IEndpointRouteBuilder routes) =>
        routes.MapGet("/v1/grains", context => Http.AnswerAsync(context, statistics.List(), ContractsJson.Default.GrainList))
            .WithMetadata(new Operation("Grains of the coordinator that answers, by type: activations, calls, latency and errors.") { Answer = ContractsJson.Default.GrainList });
}
