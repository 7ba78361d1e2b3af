using System.Diagnostics.Metrics;

namespace Orleans.Embedded;

/// <summary>What the engine counts, under Orleans' names: whoever watches it need not know which engine runs.</summary>
internal static class SiloInstruments
{
    private static readonly Meter s_meter = new("Microsoft.Orleans");
    private static readonly UpDownCounter<int> s_grains = s_meter.CreateUpDownCounter<int>("orleans-grains", description: "Activations in memory.");

    public static void Count(string grainType, int change) => s_grains.Add(change, new KeyValuePair<string, object?>("grain_type", grainType));
}
