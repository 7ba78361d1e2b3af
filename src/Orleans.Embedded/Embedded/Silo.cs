using System.Collections.Concurrent;
using System.Globalization;
using System.Reflection;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Orleans.Runtime;

namespace Orleans.Embedded;

/// <summary>All grains of one process: finds or makes activations, delivers requests, collects what is idle. Never a cluster.</summary>
public sealed partial class Silo : IGrainFactory, IHostedService, IAsyncDisposable
{
    private readonly EmbeddedSiloOptions _options;
    private readonly Dictionary<GrainId, Activation> _activations = [];
    private readonly ConcurrentDictionary<Type, string> _typeNames = new();
    private readonly ConcurrentDictionary<string, Type> _classes = new(StringComparer.Ordinal);
    private ITimer? _collector;

    public Silo(IServiceProvider services, IOptions<EmbeddedSiloOptions> options, TimeProvider time, ILogger<Silo> log)
    {
        ArgumentNullException.ThrowIfNull(options);
        _options = options.Value;
        Services = services;
        Time = time;
        Log = log;
        Store = new SqliteStore(_options.DatabasePath, log);
        Reminders = new ReminderService(this);
    }

    internal IServiceProvider Services { get; }
    internal TimeProvider Time { get; }
    internal ILogger Log { get; }
    internal SqliteStore Store { get; }

    /// <summary>Asked for once grains are called: filters may need grains themselves.</summary>
    internal IIncomingGrainCallFilter[] Filters => field ??= [.. Services.GetServices<IIncomingGrainCallFilter>()];
    internal ReminderService Reminders { get; }

    /// <summary>Guards the directory and every queue: held for list operations only, never while grain code runs.</summary>
    internal Lock Lock { get; } = new();

    public TGrainInterface GetGrain<TGrainInterface>(string primaryKey, string? grainClassNamePrefix = null)
        where TGrainInterface : IGrainWithStringKey
    {
        ArgumentException.ThrowIfNullOrEmpty(primaryKey);
        return GrainProxy.Create<TGrainInterface>(this, new GrainId(_typeNames.GetOrAdd(typeof(TGrainInterface), static found => TypeName(ClassOf(found))), primaryKey));
    }

    public async Task StartAsync(CancellationToken cancellationToken)
    {
        await Reminders.StartAsync();
        TimeSpan often = TimeSpan.FromTicks(Math.Min(TimeSpan.FromMinutes(1).Ticks, _options.CollectionAge.Ticks));
        _collector = Time.CreateTimer(_ => Collect(), null, often, often);
    }

    public async Task StopAsync(CancellationToken cancellationToken)
    {
        _collector?.Dispose();
        Reminders.Stop();
        Activation[] all;
        lock (Lock)
        {
            all = [.. _activations.Values];
        }
        foreach (Activation activation in all)
        {
            activation.Deactivate(new DeactivationReason(DeactivationReasonCode.ShuttingDown, "the silo stops"));
        }
        await Task.WhenAll(all.Select(activation => activation.Gone)).WaitAsync(cancellationToken)
            .ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    public async ValueTask DisposeAsync()
    {
        _collector?.Dispose();
        Reminders.Stop();
        await Store.DisposeAsync();
    }

    /// <summary>Delivers a request and waits for its reply, at most the response timeout. A cycle of waiting calls is an error at once.</summary>
    internal async Task<object?> CallAsync(Request request)
    {
        Request? caller = Request.Current;
        try
        {
            Deliver(request, caller);
            return await request.Reply.Task.WaitAsync(_options.ResponseTimeout, Time);
        }
        catch (TimeoutException) when (!request.Reply.Task.IsCompleted)
        {
            throw new TimeoutException($"{request} gave no reply within {_options.ResponseTimeout.TotalSeconds:0.#} s; whether it will still run is unknown");
        }
        finally
        {
            lock (Lock)
            {
                request.Expired = true;
                caller?.Calls.Remove(request);
            }
        }
    }

    internal void Deliver(Request request, Request? caller = null)
    {
        lock (Lock)
        {
            while (true)
            {
                if (!_activations.TryGetValue(request.Target, out Activation? activation))
                {
                    activation = new Activation(this, request.Target, _classes.GetOrAdd(request.Target.Type, static type => ClassOf(type)));
                    _activations.Add(request.Target, activation);
                    SiloInstruments.Count(request.Target.Type, 1);
                }
                if (activation.TryAdd(request))
                {
                    break;
                }
                // It is on its way out: the request waits for the successor.
                activation.Gone.ContinueWith(_ => Deliver(request), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
                return;
            }
            if (caller is not null)
            {
                caller.Calls.Add(request);
                if (!request.Started && request.PathTo(caller) is { } path)
                {
                    throw new InvalidOperationException("deadlock: grains wait for each other in a circle: "
                        + string.Join(" -> ", path.Prepend(caller)) + "; make calls in one direction, or mark a method [AlwaysInterleave]");
                }
            }
        }
    }

    /// <summary>Called under the lock.</summary>
    internal void Forget(Activation activation)
    {
        if (_activations.GetValueOrDefault(activation.GrainId) == activation)
        {
            _activations.Remove(activation.GrainId);
            SiloInstruments.Count(activation.GrainId.Type, -1);
        }
    }

    private void Collect()
    {
        lock (Lock)
        {
            foreach (Activation activation in _activations.Values
                .Where(activation => activation.IsIdle && Time.GetElapsedTime(activation.LastUse) >= _options.CollectionAge).ToArray())
            {
                activation.Deactivate(new DeactivationReason(DeactivationReasonCode.ActivationIdle, "nobody called for the collection age"));
            }
        }
    }

    private static Type ClassOf(Type grainInterface)
    {
        Type[] classes = [.. GrainClasses().Where(grainInterface.IsAssignableFrom)];
        return classes.Length == 1 ? classes[0] : throw new InvalidOperationException(
            $"{grainInterface} has {classes.Length} grain classes; the embedded engine needs exactly one");
    }

    /// <summary>Of a reminder whose interface nobody has asked for yet.</summary>
    private static Type ClassOf(string typeName) => GrainClasses().First(type => TypeName(type) == typeName);

    private static IEnumerable<Type> GrainClasses()
    {
        string? engine = typeof(Grain).Assembly.GetName().Name;
        return AppDomain.CurrentDomain.GetAssemblies()
            .Where(assembly => !assembly.IsDynamic && assembly.GetReferencedAssemblies().Any(reference => reference.Name == engine))
            .SelectMany(Types)
            .Where(type => type is { IsClass: true, IsAbstract: false } && type.IsSubclassOf(typeof(Grain)));
    }

    private static IEnumerable<Type> Types(Assembly assembly)
    {
        try
        {
            return assembly.GetTypes();
        }
        catch (ReflectionTypeLoadException partly)
        {
            // A type whose base lies in an assembly that is not there is no grain of this process.
            return partly.Types.OfType<Type>();
        }
    }

    /// <summary>Orleans' default name of a grain type: "job" for JobGrain.</summary>
    private static string TypeName(Type grainClass)
    {
        string name = grainClass.Name;
        return (name.EndsWith("Grain", StringComparison.Ordinal) ? name[..^"Grain".Length] : name).ToLower(CultureInfo.InvariantCulture);
    }
}
