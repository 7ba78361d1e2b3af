using System.Collections.Immutable;
using System.Globalization;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.AspNetCore.Builder;
using Orleans;
using Trainer.Contracts;
using Trainer.Coordinator.Telemetry;

namespace Trainer.Coordinator;

/// <summary>HTTP/JSON of worker agents, and of people who look after nodes.</summary>
internal sealed class NodeApi(IGrainFactory grains, NodeChanges changes, RankLogs logs, LogArchive archive, CoordinatorMetrics metrics, TimeProvider time)
{
    private static readonly TimeSpan s_wait = TimeSpan.FromSeconds(20);

    public void Map(IEndpointRouteBuilder routes)
    {
        Role[] workers = [Role.Worker];
        routes.MapGet("/v1/nodes", ListAsync).WithMetadata(new Operation("Every node that has reported; which ranks run there, and what failed there last, is for admins.")
        {
            Roles = [Role.User], Answer = ContractsJson.Default.NodeList, Query = new Dictionary<string, string> { ["pool"] = "Of this pool; of all when absent." },
        });
        routes.MapPost("/v1/nodes/{node}/report", ReportAsync).WithMetadata(new Operation("An agent says how its node is and receives everything that is to run there.")
        {
            Roles = workers, Request = ContractsJson.Default.NodeReport, Answer = ContractsJson.Default.NodeOrders,
            Query = new Dictionary<string, string> { ["contract"] = "That of the body, which another version might not be able to read." },
        });
        routes.MapGet("/v1/nodes/{node}/changes", ChangesAsync)
            .WithMetadata(new Operation("Answers when there may be new orders for the node, or after 20 s.") { Roles = workers, Status = StatusCodes.Status204NoContent });
        routes.MapPost("/v1/nodes/{node}/drain", context => DrainAsync(context, true))
            .WithMetadata(new Operation("Moves a node's ranks elsewhere and gives it no new ones.") { Answer = ContractsJson.Default.NodeView });
        routes.MapPost("/v1/nodes/{node}/undrain", context => DrainAsync(context, false))
            .WithMetadata(new Operation("Takes a node back into service.") { Answer = ContractsJson.Default.NodeView });
        routes.MapPut("/v1/jobs/{job}/attempts/{attempt}/ranks/{rank}/{stream}", StoreAsync).WithMetadata(new Operation("An agent sends what a rank wrote, at most 1 MiB.")
        {
            Roles = workers, TakesBytes = true, Answer = ContractsJson.Default.LogLength,
            Query = new Dictionary<string, string> { ["offset"] = "Of the first byte in the stream." },
        });
    }

    private async Task ReportAsync(HttpContext context)
    {
        long start = time.GetTimestamp();
        if (int.TryParse(context.Request.Query["contract"], NumberStyles.None, CultureInfo.InvariantCulture, out int spoken))
        {
            RequireContract(spoken);
        }
        NodeReport report = await Http.ReadAsync(context, ContractsJson.Default.NodeReport);
        RequireContract(report.Contract);
        if (report.Node != (string)context.Request.RouteValues["node"]! || !JobId.TryParse(report.Node, out _) || !JobId.TryParse(report.Pool, out _)
            || report.Slots is < 0 or > 1024 || report.Ranks.IsDefault || !report.Ranks.All(IsRank) || report.Ranks.DistinctBy(rank => rank.Name).Count() < report.Ranks.Length)
        {
            throw new ApiException(StatusCodes.Status400BadRequest, "node and pool are named like jobs, slots is 0 to 1024, and ranks is a list in which each has a name of its own");
        }
        NodeOrders orders = await grains.GetGrain<INodeGrain>(report.Node).Report(report)
            ?? throw new ApiException(StatusCodes.Status409Conflict, $"another agent reports as node {report.Node}");
        foreach (RankState rank in report.Ranks)
        {
            archive.Hear(rank.Name, AttemptWatch.HasEnded(rank));
        }
        await Http.AnswerAsync(context, orders, ContractsJson.Terse.NodeOrders);
        metrics.Heard(time.GetElapsedTime(start));
    }

    private static bool IsRank(RankState? rank) => rank is { Name: { Attempt: > 0, Rank: >= 0 } name } && JobId.TryParse(name.Job.Value, out _);

    private static void RequireContract(int spoken)
    {
        if (spoken != NodeReport.CurrentContract)
        {
            string who = spoken < NodeReport.CurrentContract ? "worker" : "coordinator";
            throw new ApiException(StatusCodes.Status426UpgradeRequired,
                $"the worker speaks contract {spoken}, this coordinator {NodeReport.CurrentContract}: upgrade the {who}");
        }
    }

    /// <summary>Answers 204 when there may be new orders, or after a while.</summary>
    private async Task ChangesAsync(HttpContext context)
    {
        await changes.WaitAsync((string)context.Request.RouteValues["node"]!, s_wait, context.RequestAborted);
        context.Response.StatusCode = StatusCodes.Status204NoContent;
    }

    private async Task ListAsync(HttpContext context)
    {
        ImmutableArray<string> pools = await grains.GetGrain<IPoolIndexGrain>(IPoolIndexGrain.Key).List();
        string? only = context.Request.Query["pool"] is [{ Length: > 0 } given, ..] ? given : null;
        ImmutableArray<string>[] names = await Task.WhenAll(pools.Where(pool => only is null || pool == only).Select(pool => grains.GetGrain<IQueueGrain>(pool).Nodes()));
        NodeView?[] nodes = await Task.WhenAll(names.SelectMany(name => name).Distinct().Select(name => grains.GetGrain<INodeGrain>(name).Get()));
        bool all = Access.Of(context).Role is Role.Admin;
        await Http.AnswerAsync(context, new NodeList { Nodes = [.. nodes.OfType<NodeView>().Select(node => all ? node : node with { Ranks = [], LastStrike = null })] },
            ContractsJson.Default.NodeList);
    }

    private async Task DrainAsync(HttpContext context, bool drain)
    {
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
        (int attempt, int rank, LogStream stream) = Http.StreamOf(context);
        if (!JobId.TryParse((string?)context.Request.RouteValues["job"], out JobId job)
            || !long.TryParse(context.Request.Query["offset"], NumberStyles.None, CultureInfo.InvariantCulture, out long offset)
            || await grains.GetGrain<IJobGrain>(job.Value).Get() is not { } record || attempt < 1 || attempt > record.Attempt || rank >= record.Spec.Ranks)
        {
            throw new ApiException(StatusCodes.Status404NotFound, "there is no such stream");
        }
        using var content = new MemoryStream();
        await context.Request.Body.CopyToAsync(content, context.RequestAborted);
        if (content.Length > LogLength.MaxPiece)
        {
            throw new ApiException(StatusCodes.Status413PayloadTooLarge, $"at most {LogLength.MaxPiece} bytes at once");
        }
        var name = new RankName(job, attempt, rank);
        archive.Hear(name);
        long length;
        try
        {
            length = logs.Append(name, stream, offset, content.GetBuffer().AsSpan(0, (int)content.Length), attempt == record.Attempt);
        }
        catch (IOException error)
        {
            throw new ApiException(StatusCodes.Status507InsufficientStorage, $"the coordinator cannot store logs: {error.Message}; once it can, they come by themselves");
        }
        await Http.AnswerAsync(context, new LogLength { Length = length }, ContractsJson.Default.LogLength);
    }
}
