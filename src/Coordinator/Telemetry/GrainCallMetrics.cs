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
            metrics.Called(_names.GetOrAdd(context.Grain.GetType(), static grain => ShortName(grain.Name)), time.GetElapsedTime(start), error);
        }
    }

    /// <summary>"job" of "Trainer.Coordinator.JobGrain,Trainer.Coordinator", of "JobGrain" and of "job".</summary>
    public static string ShortName(string type)
    {
        string name = type.Split(',')[0].Split('.')[^1].ToLower(CultureInfo.InvariantCulture);
        return name.EndsWith("grain", StringComparison.Ordinal) && name.Length > "grain".Length ? name[..^"grain".Length] : name;
    }
}
