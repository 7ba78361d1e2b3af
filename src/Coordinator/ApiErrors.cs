using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
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
    private static readonly TimeSpan s_linger = TimeSpan.FromSeconds(2);

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
                JsonException json => (StatusCodes.Status400BadRequest, $"the body is not what is expected here: {InWords(json)}"),
                BadHttpRequestException bad => (bad.StatusCode, bad.Message),
                _ when IsFull(error) => (StatusCodes.Status507InsufficientStorage, "the disk of the coordinator's database is full, and nothing was changed; make room there and try again"),
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
            await LingerAsync(context);
        }
    });

    /// <summary>
    /// A connection that ends while its client still sends is reset, and the client never reads why. So what is left of a body that is
    /// too large, but not beyond measure, is read and thrown away after the answer.
    /// </summary>
    private static async Task LingerAsync(HttpContext context)
    {
        if (context.Features.Get<IHttpMaxRequestBodySizeFeature>() is not { IsReadOnly: false, MaxRequestBodySize: { } most } limit
            || context.Request.ContentLength is not { } length || length <= most || length > 16 * most || context.Request.Headers.Expect.Count > 0)
        {
            return;
        }
        limit.MaxRequestBodySize = length;
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted);
        patience.CancelAfter(s_linger);
        try
        {
            await context.Response.CompleteAsync();
            await context.Request.Body.CopyToAsync(Stream.Null, patience.Token);
        }
        catch (Exception error) when (error is IOException or OperationCanceledException)
        {
            // It went, or sends too slowly to be waited for: nobody reads the rest.
            context.Abort();
        }
    }

    /// <summary>SQLite's words: what comes from another coordinator's grain has another type.</summary>
    private static bool IsFull(Exception error) => error.GetBaseException().Message.Contains("database or disk is full", StringComparison.Ordinal);

    /// <summary>Without the names of our types, which mean nothing to a client.</summary>
    private static string InWords(JsonException error)
    {
        string text = Converted().Replace(error.Message, match => match.Groups[1].Value switch
        {
            var type when type.Contains("Int32", StringComparison.Ordinal) || type.Contains("Int64", StringComparison.Ordinal) => "a whole number is expected",
            var type when type.Contains("Double", StringComparison.Ordinal) => "a number is expected",
            var type when type.Contains("Boolean", StringComparison.Ordinal) => "true or false is expected",
            var type when type.Contains("Dictionary", StringComparison.Ordinal) => "an object is expected",
            var type when type.Contains("List", StringComparison.Ordinal) || type.Contains("Array", StringComparison.Ordinal) || type.Contains("[]", StringComparison.Ordinal) => "a list is expected",
            "System.String" => "text is expected",
            _ => "a value of another kind is expected",
        });
        text = Missing().Replace(text, "keys are missing: ");
        text = Null().Replace(text, "$1 must not be null.");
        return Unknown().Replace(text, "there is no key $1 here");
    }

    [GeneratedRegex(@"The JSON value could not be converted to (.+?)(?=\. Path:|\.?\z)")]
    private static partial Regex Converted();

    [GeneratedRegex(@"JSON deserialization for type '[^']*' was missing required properties including: ")]
    private static partial Regex Missing();

    [GeneratedRegex(@"The (?:constructor parameter|property or field) ('[^']*') on type '[^']*' doesn't allow (?:null values|getting null values|setting null values)\..*?(?= Path:|\z)", RegexOptions.Singleline)]
    private static partial Regex Null();

    [GeneratedRegex(@"The JSON property ('[^']*') could not be mapped to any \.NET member contained in type '[^']*'")]
    private static partial Regex Unknown();

    [LoggerMessage(Level = LogLevel.Error, Message = "{Method} {Path} failed")]
    private static partial void LogFailed(ILogger log, string method, PathString path, Exception error);
}
