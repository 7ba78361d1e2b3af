using System.Buffers;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace Trainer.Coordinator.Telemetry;

/// <summary>What Prometheus scrapes.</summary>
internal sealed class MetricsApi(MetricsStore store)
{
    public void Map(IEndpointRouteBuilder routes) => routes.MapGet("/metrics", ScrapeAsync)
        .WithMetadata(new Operation("Metrics of all projects as Prometheus' text, or as OpenMetrics when that is accepted.") { Roles = [Role.Monitor], ContentType = "text/plain" });

    private async Task ScrapeAsync(HttpContext context)
    {
        bool openMetrics = context.Request.GetTypedHeaders().Accept is { Count: > 0 } accepted && Prefers(accepted);
        var text = new ArrayBufferWriter<byte>(64 << 10);
        store.Write(text, openMetrics);
        context.Response.ContentType = openMetrics ? PrometheusText.OpenMetricsContentType : PrometheusText.ContentType;
        context.Response.ContentLength = text.WrittenCount;
        await context.Response.Body.WriteAsync(text.WrittenMemory, context.RequestAborted);
    }

    /// <summary>Prometheus weighs what it accepts; a browser accepts anything.</summary>
    private static bool Prefers(IList<Microsoft.Net.Http.Headers.MediaTypeHeaderValue> accepted)
    {
        double open = Weight("application/openmetrics-text"), plain = Weight("text/plain");
        return open > 0 && open >= plain;

        double Weight(string type) => accepted.Where(each => each.MediaType.Equals(type, StringComparison.OrdinalIgnoreCase) && Version(each)).Select(each => each.Quality ?? 1).DefaultIfEmpty().Max();

        // Of OpenMetrics there is a version 1.0.0, and an older one of the same form.
        static bool Version(Microsoft.Net.Http.Headers.MediaTypeHeaderValue type) =>
            type.Parameters.FirstOrDefault(parameter => parameter.Name.Equals("version", StringComparison.OrdinalIgnoreCase))?.Value.Value?.Trim('"') is null or "1.0.0" or "0.0.1" or "0.0.4";
    }
}
