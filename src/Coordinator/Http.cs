using System.Globalization;
using System.IO.Compression;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Http;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>JSON in and out of a request.</summary>
internal static class Http
{
    /// <summary>Read whole first, within the server's limit: a reader that may stop anywhere takes twice the time, for a thousand nodes a second.</summary>
    public static async Task<T> ReadAsync<T>(HttpContext context, JsonTypeInfo<T> type)
    {
        // What a client says of its length is not believed further than a usual report is long.
        using var body = new MemoryStream((int)Math.Clamp(context.Request.ContentLength ?? 0, 1024, 1 << 14));
        await context.Request.Body.CopyToAsync(body, context.RequestAborted);
        return JsonSerializer.Deserialize(body.GetBuffer().AsSpan(0, (int)body.Length), type)
            ?? throw new ApiException(StatusCodes.Status400BadRequest, "the body is null");
    }

    public static Task AnswerAsync<T>(HttpContext context, T answer, JsonTypeInfo<T> type) =>
        context.Response.WriteAsJsonAsync(answer, type, cancellationToken: context.RequestAborted);

    /// <summary>For long answers of numbers.</summary>
    public static async Task AnswerCompressedAsync<T>(HttpContext context, T answer, JsonTypeInfo<T> type)
    {
        context.Response.ContentType = "application/json";
        context.Response.Headers.Vary = "Accept-Encoding";
        if (!Accepts(context.Request, "gzip"))
        {
            await JsonSerializer.SerializeAsync(context.Response.Body, answer, type, context.RequestAborted);
            return;
        }
        context.Response.Headers.ContentEncoding = "gzip";
        await using var gzip = new GZipStream(context.Response.Body, CompressionLevel.Fastest, leaveOpen: true);
        await JsonSerializer.SerializeAsync(gzip, answer, type, context.RequestAborted);
    }

    /// <summary>The client reads this encoding.</summary>
    public static bool Accepts(HttpRequest request, string encoding) =>
        request.Headers.AcceptEncoding.Any(accept => accept?.Split(',').Any(each => each.Split(';')[0].Trim().Equals(encoding, StringComparison.OrdinalIgnoreCase)) == true);

    /// <summary>The client asks for this type of content.</summary>
    public static bool Asks(HttpRequest request, string contentType) =>
        request.Headers.Accept.Any(accept => accept?.Contains(contentType, StringComparison.OrdinalIgnoreCase) == true);

    /// <summary>Which stream a route names.</summary>
    /// <exception cref="ApiException">None.</exception>
    public static (int Attempt, int Rank, LogStream Stream) StreamOf(HttpContext context)
    {
        return int.TryParse((string?)context.Request.RouteValues["attempt"], NumberStyles.None, CultureInfo.InvariantCulture, out int attempt)
            && int.TryParse((string?)context.Request.RouteValues["rank"], NumberStyles.None, CultureInfo.InvariantCulture, out int rank)
            && Enum.GetValues<LogStream>().Where(stream => Spelling.Of(stream) == (string?)context.Request.RouteValues["stream"]).ToArray() is [var found]
            ? (attempt, rank, found)
            : throw new ApiException(StatusCodes.Status404NotFound, "there is no such stream");
    }
}
