using System.Diagnostics.Metrics;

namespace Trainer.Coordinator.Telemetry;

/// <summary>Whose instruments are told: ours, ASP.NET's of requests, the engine's of activations, the runtime's of the process.</summary>
internal static class TelemetryMeters
{
    public const string Http = "Microsoft.AspNetCore.Hosting";
    public const string Runtime = "System.Runtime";
    public const string Engine = "Microsoft.Orleans";
    public const string Database = "Npgsql";

    /// <summary>The engine's count of grains in memory.</summary>
    public const string Activations = "orleans-grains";

    private static readonly HashSet<string> s_runtime = new(StringComparer.Ordinal)
    {
        "dotnet.process.cpu.time", "dotnet.process.memory.working_set", "dotnet.gc.collections", "dotnet.gc.heap.total_allocated", "dotnet.gc.pause.time",
        "dotnet.gc.last_collection.heap.size", "dotnet.exceptions", "dotnet.monitor.lock_contentions",
    };

    private static readonly HashSet<string> s_database = new(StringComparer.Ordinal) { "db.client.operation.duration", "db.client.commands.duration" };

    public static bool Includes(Instrument instrument) => instrument.Meter.Name switch
    {
        CoordinatorMetrics.MeterName or CoordinatorMetrics.LiveMeterName or Http => true,
        // Some of its names end in what Prometheus keeps for histograms.
        Runtime => s_runtime.Contains(instrument.Name),
        Engine => instrument.Name is Activations,
        Database => s_database.Contains(instrument.Name),
        _ => false,
    };
}
