using System.Reflection;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Orleans.Concurrency;
using Orleans.Runtime;
using Orleans.Storage;

namespace Orleans.Embedded;

/// <summary>A grain in memory: its instance, its queue of requests, its timers. The silo's lock guards the lists.</summary>
internal sealed partial class Activation : IGrainContext
{
    [ThreadStatic]
    private static Activation? s_underConstruction;

    private readonly Type _class;
    private readonly bool _reentrant;
    private readonly TurnScheduler _scheduler = new();
    private readonly Queue<Request> _waiting = [];
    private readonly List<GrainTimer> _timers = [];
    private readonly TaskCompletionSource _gone = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Grain? _grain;
    private bool _active;
    private bool _ending;
    private DeactivationReason? _reason;

    public Activation(Silo silo, GrainId id, Type grainClass)
    {
        Silo = silo;
        GrainId = id;
        _class = grainClass;
        _reentrant = grainClass.IsDefined(typeof(ReentrantAttribute));
        LastUse = silo.Time.GetTimestamp();
        _scheduler.Run(ActivateAsync);
    }

    /// <summary>Set while a grain's constructor runs on this thread.</summary>
    public static Activation? UnderConstruction => s_underConstruction;

    public Silo Silo { get; }
    public GrainId GrainId { get; }
    public object? GrainInstance => _grain;
    public IServiceProvider ActivationServices => Silo.Services;
    public List<Request> Running { get; } = [];
    public long LastUse { get; private set; }

    /// <summary>Completes when the activation has left memory.</summary>
    public Task Gone => _gone.Task;

    /// <summary>Nothing but timer ticks goes on.</summary>
    public bool IsIdle => _active && Running.TrueForAll(request => request.IsTick) && _waiting.All(request => request.IsTick);

    /// <summary>False when the activation is ending and the request needs a new one. Called under the silo's lock.</summary>
    public bool TryAdd(Request request)
    {
        if (_ending)
        {
            return false;
        }
        request.Activation = this;
        if (_active && request.Interleaves)
        {
            Start(request);
        }
        else
        {
            _waiting.Enqueue(request);
            StartWaiting();
        }
        return true;
    }

    public void Deactivate(DeactivationReason reason)
    {
        lock (Silo.Lock)
        {
            _reason ??= reason;
            EndWhenIdle();
        }
    }

    public GrainTimer AddTimer(Func<CancellationToken, Task> callback, GrainTimerCreationOptions options)
    {
        var timer = new GrainTimer(this, callback, options);
        lock (Silo.Lock)
        {
            _timers.Add(timer);
        }
        timer.Change(options.DueTime, options.Period);
        return timer;
    }

    public void Remove(GrainTimer timer)
    {
        lock (Silo.Lock)
        {
            _timers.Remove(timer);
        }
    }

    public void Touch() => LastUse = Silo.Time.GetTimestamp();

    private async Task ActivateAsync()
    {
        Request.Current = null;
        try
        {
            _grain = await ConstructAsync();
            await _grain.OnActivateAsync(CancellationToken.None);
        }
        catch (Exception error)
        {
            // Whatever stops a grain from coming to life is every caller's error.
            LogNotActivated(Silo.Log, GrainId, error);
            foreach (Request request in Leave())
            {
                request.Reply.TrySetException(error);
            }
            return;
        }
        lock (Silo.Lock)
        {
            _active = true;
            Request[] early = [.. _waiting];
            _waiting.Clear();
            Array.ForEach(early, request => TryAdd(request));
            EndWhenIdle();
        }
    }

    private async Task<Grain> ConstructAsync()
    {
        ConstructorInfo constructor = _class.GetConstructors().Single();
        var states = new List<Core.IStorage>();
        object[] arguments = [.. constructor.GetParameters().Select(Resolve)];
        foreach (Core.IStorage state in states)
        {
            await state.ReadStateAsync();
        }
        s_underConstruction = this;
        try
        {
            return (Grain)constructor.Invoke(BindingFlags.DoNotWrapExceptions, null, arguments, null);
        }
        finally
        {
            s_underConstruction = null;
        }

        object Resolve(ParameterInfo parameter)
        {
            if (parameter.GetCustomAttribute<PersistentStateAttribute>() is not { } attribute)
            {
                return Silo.Services.GetRequiredService(parameter.ParameterType);
            }
            Type type = typeof(PersistentState<>).MakeGenericType(parameter.ParameterType.GetGenericArguments()[0]);
            object state = Activator.CreateInstance(type, Silo.Store, GrainId, attribute.StateName)!;
            states.Add((Core.IStorage)state);
            return state;
        }
    }

    /// <summary>First come, first served. Thousands may wait, so that none is looked at before its turn.</summary>
    private void StartWaiting()
    {
        while (_active && _waiting.TryPeek(out Request? next) && (next.Expired || MayStart(next)))
        {
            _waiting.Dequeue();
            if (!next.Expired)
            {
                Start(next);
            }
        }
    }

    private bool MayStart(Request request) =>
        Running.Count == 0 || _reentrant || (request.IsReadOnly && Running.TrueForAll(running => running.IsReadOnly));

    private void Start(Request request)
    {
        request.Started = true;
        Running.Add(request);
        if (!request.IsTick)
        {
            Touch();
        }
        _scheduler.Run(() => RunAsync(request));
    }

    private async Task RunAsync(Request request)
    {
        Request.Current = request;
        try
        {
            request.Reply.TrySetResult(await (request.IsTick || Silo.Filters.Length == 0 ? request.Work(_grain!) : new FilteredCall(request, _grain!, Silo.Filters).RunAsync()));
        }
        catch (Exception error)
        {
            if (error is InconsistentStateException)
            {
                Deactivate(new DeactivationReason(DeactivationReasonCode.ApplicationRequested, "the stored state was written by somebody else"));
            }
            request.Reply.TrySetException(error);
        }
        lock (Silo.Lock)
        {
            Running.Remove(request);
            EndWhenIdle();
            if (!_ending)
            {
                StartWaiting();
            }
        }
    }

    private void EndWhenIdle()
    {
        if (_reason is not null && _active && !_ending && Running.Count == 0)
        {
            _ending = true;
            _scheduler.Run(DeactivateAsync);
        }
    }

    private async Task DeactivateAsync()
    {
        Request.Current = null;
        try
        {
            await _grain!.OnDeactivateAsync(_reason!.Value, CancellationToken.None);
        }
        catch (Exception error)
        {
            // The activation leaves anyway: its state is in the store.
            LogNotDeactivated(Silo.Log, GrainId, error);
        }
        foreach (Request request in Leave())
        {
            Silo.Deliver(request);
        }
    }

    private Request[] Leave()
    {
        GrainTimer[] timers;
        Request[] left;
        lock (Silo.Lock)
        {
            _ending = true;
            timers = [.. _timers];
            left = [.. _waiting];
            _waiting.Clear();
            Silo.Forget(this);
        }
        foreach (GrainTimer timer in timers)
        {
            timer.Dispose();
        }
        _gone.SetResult();
        return left;
    }

    [LoggerMessage(Level = LogLevel.Error, Message = "Grain {Grain} could not be activated")]
    private static partial void LogNotActivated(ILogger log, GrainId grain, Exception error);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Grain {Grain} failed in OnDeactivateAsync")]
    private static partial void LogNotDeactivated(ILogger log, GrainId grain, Exception error);
}
