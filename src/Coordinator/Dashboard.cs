using System.IO.Compression;
using System.Security.Cryptography;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace Trainer.Coordinator;

/// <summary>
/// The pages that people keep open: one shell, its script and its styles, which the build puts into this assembly. They show what the
/// API tells, and hold nothing themselves. A browser may load nothing else, nor from anywhere else.
/// </summary>
internal static class Dashboard
{
    private const string Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        + "form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

    private static readonly Dictionary<string, string> s_types = new(StringComparer.Ordinal)
    {
        [".html"] = "text/html; charset=utf-8",
        [".js"] = "text/javascript; charset=utf-8",
        [".css"] = "text/css; charset=utf-8",
        [".svg"] = "image/svg+xml",
    };

    private static readonly Lazy<Dictionary<string, Asset>> s_assets = new(Load);

    /// <summary>
    /// Every answer, also of the API: nothing guesses types, tells other sites where it came from, is framed by them, or is kept. The
    /// engine's own pages (without an <see cref="Operation"/>) bring their scripts along.
    /// </summary>
    public static void UseSafeHeaders(this IApplicationBuilder app) => app.Use((context, next) =>
    {
        IHeaderDictionary headers = context.Response.Headers;
        headers.XContentTypeOptions = "nosniff";
        headers["Referrer-Policy"] = "no-referrer";
        headers.XFrameOptions = "DENY";
        headers["Cross-Origin-Resource-Policy"] = "same-origin";
        headers.CacheControl = "no-store";
        if (context.GetEndpoint() is not { } endpoint || endpoint.Metadata.GetMetadata<Operation>() is not null)
        {
            headers.ContentSecurityPolicy = Policy;
        }
        return next(context);
    });

    public static void Map(IEndpointRouteBuilder routes)
    {
        foreach ((string route, string summary) in new[]
        {
            ("/", "Page: the jobs."), ("/jobs/{name}", "Page: one job."), ("/compare", "Page: jobs in one chart."), ("/cluster", "Page: nodes, queues and grains."),
        })
        {
            routes.MapGet(route, context => AnswerAsync(context, "index.html")).WithMetadata(new Operation(summary) { Roles = [Role.User], IsPage = true, ContentType = "text/html" });
        }
        routes.MapGet("/sign-in", context => AnswerAsync(context, "sign-in.html")).WithMetadata(new Operation("Page: signing in.") { IsOpen = true, ContentType = "text/html" });
        routes.MapGet("/assets/{file}", context => AnswerAsync(context, (string)context.Request.RouteValues["file"]!))
            .WithMetadata(new Operation("Scripts and styles of the pages.") { IsOpen = true, ContentType = "text/javascript" });
    }

    /// <summary>Answers what no endpoint does: people see it in the shell.</summary>
    public static void UseNotFound(this IApplicationBuilder app) => app.Use(async (context, next) =>
    {
        if (context.GetEndpoint() is not null)
        {
            await next(context);
            return;
        }
        if (!HttpMethods.IsGet(context.Request.Method) || !Http.Asks(context.Request, "text/html"))
        {
            throw new ApiException(StatusCodes.Status404NotFound, "there is nothing at this address");
        }
        context.Response.StatusCode = StatusCodes.Status404NotFound;
        await AnswerAsync(context, "index.html");
    });

    private static async Task AnswerAsync(HttpContext context, string name)
    {
        if (!s_assets.Value.TryGetValue(name, out Asset? asset))
        {
            throw new ApiException(StatusCodes.Status404NotFound, "there is no such file");
        }
        bool brotli = Http.Accepts(context.Request, "br"), gzip = !brotli && Http.Accepts(context.Request, "gzip");
        string tag = $"\"{asset.Hash}{(brotli ? "-br" : gzip ? "-gzip" : "")}\"";
        IHeaderDictionary headers = context.Response.Headers;
        headers.ETag = tag;
        // Asked about each time: a page of this version never runs with a script of another.
        headers.CacheControl = "no-cache";
        headers.Vary = "Accept-Encoding";
        if (context.Request.Headers.IfNoneMatch.Any(known => known?.Split(',').Any(each => each.Trim() == tag) == true))
        {
            context.Response.StatusCode = StatusCodes.Status304NotModified;
            return;
        }
        byte[] content = brotli ? asset.Brotli.Value : gzip ? asset.Gzip.Value : asset.Content;
        context.Response.ContentType = s_types[Path.GetExtension(name)];
        context.Response.ContentLength = content.Length;
        if (brotli || gzip)
        {
            headers.ContentEncoding = brotli ? "br" : "gzip";
        }
        await context.Response.Body.WriteAsync(content, context.RequestAborted);
    }

    private static Dictionary<string, Asset> Load()
    {
        const string Folder = "dashboard/";
        var assets = new Dictionary<string, Asset>(StringComparer.Ordinal);
        foreach (string resource in typeof(Dashboard).Assembly.GetManifestResourceNames().Where(name => name.StartsWith(Folder, StringComparison.Ordinal)))
        {
            using Stream stream = typeof(Dashboard).Assembly.GetManifestResourceStream(resource)!;
            using var content = new MemoryStream();
            stream.CopyTo(content);
            assets.Add(resource[Folder.Length..], new Asset(content.ToArray()));
        }
        return assets;
    }

    private sealed class Asset(byte[] content)
    {
        public byte[] Content { get; } = content;
        public string Hash { get; } = Convert.ToHexStringLower(SHA256.HashData(content))[..16];
        public Lazy<byte[]> Brotli { get; } = new(() => Compress(content, target => new BrotliStream(target, CompressionLevel.Optimal)));
        public Lazy<byte[]> Gzip { get; } = new(() => Compress(content, target => new GZipStream(target, CompressionLevel.Optimal)));

        private static byte[] Compress(byte[] content, Func<Stream, Stream> open)
        {
            using var target = new MemoryStream();
            using (Stream stream = open(target))
            {
                stream.Write(content);
            }
            return target.ToArray();
        }
    }
}
