using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>What the grains of this coordinator do.</summary>
internal sealed class GrainApi(IEnumerable<IIncomingGrainCallFilter> filters)
{
    // Made before the first grain, so that it counts all of them.
    private readonly GrainStatistics _statistics = filters.OfType<GrainStatistics>().Single();

    public void Map(IEndpointRouteBuilder routes) =>
        routes.MapGet("/v1/grains", context => Http.AnswerAsync(context, _statistics.List(), ContractsJson.Default.GrainList))
            .WithMetadata(new Operation("Grains of the coordinator that answers, by type: activations, calls, latency and errors.") { Answer = ContractsJson.Default.GrainList });
}
