using System.Collections.Concurrent;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Trainer.Contracts;

namespace Trainer.EndToEnd.Tests;

/// <summary>Takes the heartbeats of one attempt's ranks: tells them of rank 0, and gives each its order.</summary>
internal sealed class StubAgent : IAsyncDisposable
{
    private readonly WebApplication _server;
    private readonly int _attempt;
    private volatile string? _endpoint;

    private StubAgent(string socket, int attempt)
    {
        _attempt = attempt;
        WebApplicationBuilder builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => kestrel.ListenUnixSocket(socket));
        builder.Services.AddRoutingCore();
        _server = builder.Build();
        _server.UseRouting();
        _server.MapPost("/v1/jobs/{job}/heartbeat", new RequestDelegate(HeartbeatAsync));
    }

    /// <summary>Of each rank, every report in its order.</summary>
    public ConcurrentDictionary<int, ConcurrentQueue<RankReport>> Reports { get; } = [];

    /// <summary>Of each rank; those without one go on.</summary>
    public ConcurrentDictionary<int, RankOrder> Orders { get; } = [];

    public static async Task<StubAgent> StartAsync(string socket, int attempt)
    {
        var agent = new StubAgent(socket, attempt);
        await agent._server.StartAsync();
        return agent;
    }

    public ValueTask DisposeAsync() => _server.DisposeAsync();

    private async Task HeartbeatAsync(HttpContext context)
    {
        RankReport report = (await context.Request.ReadFromJsonAsync(ContractsJson.Default.RankReport))!;
        if (report.Attempt == _attempt)
        {
            Reports.GetOrAdd(report.Rank, _ => []).Enqueue(report);
            _endpoint ??= report.Endpoint;
        }

        var reply = new RankReply { Order = Orders.GetValueOrDefault(report.Rank), Rendezvous = _endpoint };
        await context.Response.WriteAsJsonAsync(reply, ContractsJson.Default.RankReply);
    }
}
