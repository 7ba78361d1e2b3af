using System.Collections.Immutable;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>HTTP/JSON of pools and quotas.</summary>
internal sealed class PoolApi(IGrainFactory grains)
{
    public void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/pools", ListAsync).WithMetadata(new Operation("Every pool: slots, jobs and quotas; a user sees its own project's.")
        {
            Roles = [Role.User], Answer = ContractsJson.Default.PoolList,
        });
        routes.MapPut("/v1/pools/{pool}/quotas/{project}", SetQuotaAsync).WithMetadata(new Operation("Bounds the slots that a project holds at once.")
        {
            Request = ContractsJson.Default.QuotaRequest, Answer = ContractsJson.Default.PoolView,
        });
    }

    private async Task ListAsync(HttpContext context)
    {
        Caller caller = Access.Of(context);
        ImmutableArray<string> names = await grains.GetGrain<IPoolIndexGrain>(IPoolIndexGrain.Key).List();
        PoolView[] pools = await Task.WhenAll(names.Select(name => grains.GetGrain<IQueueGrain>(name).Get()));
        await Http.AnswerAsync(context, new PoolList { Pools = [.. pools.Select(pool => pool with { Projects = [.. pool.Projects.Where(use => caller.MaySee(use.Project))] })] },
            ContractsJson.Default.PoolList);
    }

    private async Task SetQuotaAsync(HttpContext context)
    {
        string pool = (string)context.Request.RouteValues["pool"]!, project = (string)context.Request.RouteValues["project"]!;
        using JsonDocument body = await JsonDocument.ParseAsync(context.Request.Body, default, context.RequestAborted);
        // Who forgets the number does not take the bound away.
        if (body.RootElement.ValueKind is not JsonValueKind.Object || !body.RootElement.TryGetProperty("slots", out _))
        {
            throw new ApiException(StatusCodes.Status400BadRequest, "slots is missing: a number, or null for no bound");
        }
        QuotaRequest request = body.RootElement.Deserialize(ContractsJson.Default.QuotaRequest)!;
        if (!JobId.TryParse(pool, out _) || !JobId.TryParse(project, out _) || request.Slots is < 0 or > QuotaRequest.MostSlots)
        {
            throw new ApiException(StatusCodes.Status400BadRequest, $"pool and project are named like jobs, and slots is 0 to {QuotaRequest.MostSlots}, or null for no bound");
        }
        IQueueGrain queue = grains.GetGrain<IQueueGrain>(pool);
        await queue.SetQuota(project, request.Slots);
        await Http.AnswerAsync(context, await queue.Get(), ContractsJson.Default.PoolView);
    }
}
