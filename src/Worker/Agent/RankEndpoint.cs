using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>Where the ranks of this node report and fetch their orders: HTTP on the agent's Unix socket, for the owner only.</summary>
internal sealed class RankEndpoint : IAsyncDisposable
{
    private const long MaxBody = 1 << 16;

    private readonly WebApplication _app;

    private RankEndpoint(WebApplication app) => _app = app;

    /// <summary>Starts to answer.</summary>
    public static async Task<RankEndpoint> StartAsync(string socket, RankSupervisor supervisor, ILoggerFactory logs, CancellationToken cancellationToken)
    {
        // As in the coordinator: no settings of the working folder, and no watch on it.
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder(new WebApplicationOptions { ContentRootPath = AppContext.BaseDirectory, Args = ["--hostBuilder:reloadConfigOnChange=false"] });
        builder.Services.AddSingleton(logs);
        builder.Services.AddSingleton<IHostLifetime, GuestLifetime>();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.Limits.MaxRequestBodySize = MaxBody;
            kestrel.ListenUnixSocket(socket);
        });
        WebApplication app = builder.Build();
        app.MapPost("/v1/jobs/{job}/heartbeat", context => AnswerAsync(context, supervisor));
        // The caller holds the lock of the home, so a socket that is there is left from a killed agent.
        File.Delete(socket);
        await app.StartAsync(cancellationToken);
        File.SetUnixFileMode(socket, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        return new RankEndpoint(app);
    }

    public async ValueTask DisposeAsync()
    {
        await _app.StopAsync();
        await _app.DisposeAsync();
    }

    private static async Task AnswerAsync(HttpContext context, RankSupervisor supervisor)
    {
        try
        {
            if (!JobId.TryParse((string?)context.Request.RouteValues["job"], out JobId job))
            {
                await RefuseAsync(context, StatusCodes.Status404NotFound, "there is no such job");
            }
            else if (await JsonSerializer.DeserializeAsync(context.Request.Body, ContractsJson.Default.RankReport, context.RequestAborted) is not { } report)
            {
                await RefuseAsync(context, StatusCodes.Status400BadRequest, "the body is null");
            }
            else
            {
                await context.Response.WriteAsJsonAsync(supervisor.Hear(job, report), ContractsJson.Default.RankReply, cancellationToken: context.RequestAborted);
            }
        }
        catch (JsonException error)
        {
            await RefuseAsync(context, StatusCodes.Status400BadRequest, $"the body is not a rank's report: {error.Message}");
        }
        catch (BadHttpRequestException error)
        {
            await RefuseAsync(context, error.StatusCode, error.Message);
        }
        catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
        {
            // The rank is gone.
        }
    }

    private static Task RefuseAsync(HttpContext context, int status, string why)
    {
        context.Response.StatusCode = status;
        return context.Response.WriteAsJsonAsync(new ApiError { Error = why }, ContractsJson.Default.ApiError);
    }

    /// <summary>Signals are the business of the process that the agent runs in.</summary>
    private sealed class GuestLifetime : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
