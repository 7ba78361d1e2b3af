using System.Collections.Concurrent;
using System.Collections.Immutable;
using System.Globalization;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using Trainer.Contracts;

namespace Trainer.Worker.Tests.Agent;

/// <summary>A coordinator that hears what the agent says and orders what a test wants.</summary>
internal sealed class StubCoordinator(string socket) : IAsyncDisposable
{
    private WebApplication? _app;

    public string Socket { get; } = socket;

    public NodeOrders Orders { get; set; } = new();

    public int Status { get; set; } = StatusCodes.Status200OK;

    public ConcurrentQueue<(DateTimeOffset At, NodeReport Report)> Reports { get; } = new();

    public NodeReport? Last => Reports.LastOrDefault().Report;

    public string? Authorization { get; private set; }

    public Func<NodeReport, NodeOrders>? Decide { get; set; }

    public ConcurrentDictionary<string, byte[]> Logs { get; } = new();

    /// <summary>Pieces are refused with 503 while this is true.</summary>
    public bool Full { get; set; }

    /// <summary>Every so many pieces one arrives of which only half is kept.</summary>
    public int Halves { get; set; }

    private readonly SemaphoreSlim _changed = new(0);

    private int _pieces;

    public async Task StartAsync()
    {
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.Limits.MaxRequestBodySize = 2 << 20;
            kestrel.ListenUnixSocket(Socket);
        });
        WebApplication app = builder.Build();
        app.MapPost("/v1/nodes/{node}/report", async context =>
        {
            Authorization = context.Request.Headers.Authorization;
            if (Status != StatusCodes.Status200OK)
            {
                context.Response.StatusCode = Status;
                await context.Response.WriteAsJsonAsync(new ApiError { Error = "the stub refuses" }, ContractsJson.Default.ApiError);
                return;
            }
            NodeReport report = (await context.Request.ReadFromJsonAsync(ContractsJson.Default.NodeReport))!;
            Reports.Enqueue((DateTimeOffset.UtcNow, report));
            await context.Response.WriteAsJsonAsync(Decide?.Invoke(report) ?? Orders, ContractsJson.Default.NodeOrders);
        });
        app.MapPut("/v1/jobs/{job}/attempts/{attempt}/ranks/{rank}/{stream}", async context =>
        {
            using var body = new MemoryStream();
            await context.Request.Body.CopyToAsync(body);
            byte[] piece = body.ToArray();
            if (Full)
            {
                context.Response.StatusCode = StatusCodes.Status503ServiceUnavailable;
                await context.Response.WriteAsJsonAsync(new ApiError { Error = "no room" }, ContractsJson.Default.ApiError);
                return;
            }
            string key = string.Join('/', context.Request.RouteValues["job"], context.Request.RouteValues["attempt"], context.Request.RouteValues["rank"], context.Request.RouteValues["stream"]);
            byte[] before = Logs.GetValueOrDefault(key, []);
            if (long.Parse(context.Request.Query["offset"]!, CultureInfo.InvariantCulture) == before.Length)
            {
                bool half = Halves > 0 && piece.Length > 1 && ++_pieces % Halves == 0;
                Logs[key] = [.. before, .. half ? piece[..(piece.Length / 2)] : piece];
            }
            await context.Response.WriteAsJsonAsync(new LogLength { Length = Logs.GetValueOrDefault(key, []).Length }, ContractsJson.Default.LogLength);
        });
        app.MapGet("/v1/nodes/{node}/changes", async context =>
        {
            await _changed.WaitAsync(context.RequestAborted);
            context.Response.StatusCode = StatusCodes.Status204NoContent;
        });
        File.Delete(Socket);
        await app.StartAsync();
        _app = app;
    }

    public async Task StopAsync()
    {
        if (_app is { } app)
        {
            _app = null;
            using var now = new CancellationTokenSource(TimeSpan.FromMilliseconds(200));
            await app.StopAsync(now.Token);
            await app.DisposeAsync();
        }
    }

    public string Log(RankName rank, string stream) =>
        System.Text.Encoding.UTF8.GetString(Logs.GetValueOrDefault(string.Create(CultureInfo.InvariantCulture, $"{rank.Job}/{rank.Attempt}/{rank.Rank}/{stream}"), []));

    public RankState? State(RankName rank) => Last?.Ranks.FirstOrDefault(state => state.Name == rank);

    public void Order(params ReadOnlySpan<RankAssignment> ranks) => Orders = new NodeOrders { Ranks = ImmutableArray.Create(ranks) };

    /// <summary>Orders have changed, says the coordinator to an agent that waits for it.</summary>
    public void Tell() => _changed.Release();

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        _changed.Dispose();
    }
}
