using System.Collections.Concurrent;
using System.Globalization;
using Orleans;

namespace Trainer.Coordinator.Telemetry;

/// <summary>Measures every call of a grain, with either engine.</summary>
public sealed class GrainCallMetrics(CoordinatorMetrics metrics, TimeProvider time) : IIncomingGrainCallFilter
{
    private readonly ConcurrentDictionary<Type, string> _names = new();

    public async Task Invoke(IIncomingGrainCallContext context)
    {
        long start = time.GetTimestamp();
        string? error = null;
        try
        {
            await context.Invoke();
        }
        catch (Exception failed)
        {
            error = failed.GetType().Name;
            throw;
        }
        finally
        {
            metrics.Called(_names.GetOrAdd(context.Grain.GetType(), NameOf), time.GetElapsedTime(start), error);
        }
    }

    /// <summary>"job" of JobGrain.</summary>
    private static string NameOf(Type grain)
    {
        string name = grain.Name.ToLower(CultureInfo.InvariantCulture);
        return name.EndsWith("grain", StringComparison.Ordinal) && name.Length > "grain".Length ? name[..^"grain".Length] : name;
    }
}
