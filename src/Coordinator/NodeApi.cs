using System.Collections.Immutable;
using System.Globalization;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.AspNetCore.Builder;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>HTTP/JSON of worker agents, and of people who look after nodes.</summary>
internal sealed class NodeApi(IGrainFactory grains, NodeChanges changes, RankLogs logs)
{
    private static readonly TimeSpan s_wait = TimeSpan.FromSeconds(20);

    public void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/nodes", ListAsync);
        routes.MapPost("/v1/nodes/{node}/report", ReportAsync);
        routes.MapGet("/v1/nodes/{node}/changes", ChangesAsync);
        routes.MapPost("/v1/nodes/{node}/drain", context => DrainAsync(context, true));
        routes.MapPost("/v1/nodes/{node}/undrain", context => DrainAsync(context, false));
        routes.MapPut("/v1/jobs/{job}/attempts/{attempt}/ranks/{rank}/{stream}", StoreAsync);
    }

    private async Task ReportAsync(HttpContext context)
    {
        Access.Require(context, Role.Worker);
        NodeReport report = await Http.ReadAsync(context, ContractsJson.Default.NodeReport);
        if (report.Contract != NodeReport.CurrentContract)
        {
            string who = report.Contract < NodeReport.CurrentContract ? "worker" : "coordinator";
            throw new ApiException(StatusCodes.Status426UpgradeRequired,
                $"the worker speaks contract {report.Contract}, this coordinator {NodeReport.CurrentContract}: upgrade the {who}");
        }
        if (report.Node != (string)context.Request.RouteValues["node"]! || !JobId.TryParse(report.Node, out _) || !JobId.TryParse(report.Pool, out _)
            || report.Slots is < 0 or > 1024 || report.Ranks.IsDefault)
        {
            throw new ApiException(StatusCodes.Status400BadRequest, "node and pool are named like jobs, slots is 0 to 1024, and ranks is a list");
        }
        await Http.AnswerAsync(context, await grains.GetGrain<INodeGrain>(report.Node).Report(report), ContractsJson.Default.NodeOrders);
    }

    /// <summary>Answers 204 when there may be new orders, or after a while.</summary>
    private async Task ChangesAsync(HttpContext context)
    {
        Access.Require(context, Role.Worker);
        await changes.WaitAsync((string)context.Request.RouteValues["node"]!, s_wait, context.RequestAborted);
        context.Response.StatusCode = StatusCodes.Status204NoContent;
    }

    private async Task ListAsync(HttpContext context)
    {
        Access.Require(context, Role.User);
        // Pools are found through their nodes; a pool of its own needs a job that names it.
        string pool = context.Request.Query["pool"] is [{ Length: > 0 } given, ..] ? given : "default";
        ImmutableArray<string> names = await grains.GetGrain<IQueueGrain>(pool).Nodes();
        NodeView?[] nodes = await Task.WhenAll(names.Select(name => grains.GetGrain<INodeGrain>(name).Get()));
        bool all = Access.Of(context).Role is Role.Admin;
        await Http.AnswerAsync(context, new NodeList { Nodes = [.. nodes.OfType<NodeView>().Select(node => all ? node : node with { Ranks = [] })] },
            ContractsJson.Default.NodeList);
    }

    private async Task DrainAsync(HttpContext context, bool drain)
    {
        Access.Require(context);
        INodeGrain node = grains.GetGrain<INodeGrain>((string)context.Request.RouteValues["node"]!);
        if (await node.Get() is null)
        {
            throw new ApiException(StatusCodes.Status404NotFound, "there is no such node; see \"trainer nodes list\"");
        }
        await node.Drain(drain);
        await Http.AnswerAsync(context, (await node.Get())!, ContractsJson.Default.NodeView);
    }

    private async Task StoreAsync(HttpContext context)
    {
        Access.Require(context, Role.Worker);
        (int attempt, int rank, LogStream stream) = Http.StreamOf(context);
        if (!JobId.TryParse((string?)context.Request.RouteValues["job"], out JobId job)
            || !long.TryParse(context.Request.Query["offset"], NumberStyles.None, CultureInfo.InvariantCulture, out long offset)
            || await grains.GetGrain<IJobGrain>(job.Value).Get() is not { } record || attempt > record.Attempt || rank >= record.Spec.Ranks)
        {
            throw new ApiException(StatusCodes.Status404NotFound, "there is no such stream");
        }
        using var content = new MemoryStream();
        await context.Request.Body.CopyToAsync(content, context.RequestAborted);
        if (content.Length > LogLength.MaxPiece)
        {
            throw new ApiException(StatusCodes.Status413PayloadTooLarge, $"at most {LogLength.MaxPiece} bytes at once");
        }
        long length = logs.Append(new RankName(job, attempt, rank), stream, offset, content.GetBuffer().AsSpan(0, (int)content.Length));
        await Http.AnswerAsync(context, new LogLength { Length = length }, ContractsJson.Default.LogLength);
    }
}
