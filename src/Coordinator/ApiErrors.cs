using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using Orleans.Runtime;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>A refusal that the client may read.</summary>
internal sealed class ApiException(int status, string message) : Exception(message)
{
    public int Status { get; } = status;
}

/// <summary>Turns what a client did wrong into one sentence; everything else is logged and answered without detail.</summary>
internal static partial class ApiErrors
{
    public static void UseApiErrors(this IApplicationBuilder app, ILogger log) => app.Use(async (context, next) =>
    {
        try
        {
            await next(context);
        }
        catch (Exception error) when (!context.Response.HasStarted && !context.RequestAborted.IsCancellationRequested)
        {
            (int status, string text) = error switch
            {
                ApiException refused => (refused.Status, refused.Message),
                ConfigException config => (StatusCodes.Status400BadRequest, config.Message),
                JsonException json => (StatusCodes.Status400BadRequest, $"the body is not what is expected here: {json.Message}"),
                BadHttpRequestException bad => (bad.StatusCode, bad.Message),
                // A grain that moves from a coordinator that died, too.
                TimeoutException or OrleansException => (StatusCodes.Status503ServiceUnavailable, "the coordinator is busy; try again"),
                _ => (StatusCodes.Status500InternalServerError, "the coordinator failed; its log says why"),
            };
            if (status >= StatusCodes.Status500InternalServerError)
            {
                LogFailed(log, context.Request.Method, context.Request.Path, error);
            }
            context.Response.StatusCode = status;
            await context.Response.WriteAsJsonAsync(new ApiError { Error = text }, ContractsJson.Default.ApiError);
        }
    });

    [LoggerMessage(Level = LogLevel.Error, Message = "{Method} {Path} failed")]
    private static partial void LogFailed(ILogger log, string method, PathString path, Exception error);
}
