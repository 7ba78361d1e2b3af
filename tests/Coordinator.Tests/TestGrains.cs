using System.Collections.Concurrent;
using Orleans;
using Orleans.Concurrency;
using Orleans.Runtime;

namespace Coordinator.Tests;

public interface ICounterGrain : IGrainWithStringKey
{
    Task<int> AddSlowly(int amount);

    Task<int> Get();

    [AlwaysInterleave]
    Task<int> Peek();

    Task Fail();

    [OneWay]
    Task Forget();

    Task Leave();

    Task Hang();

    Task StartTimer(int milliseconds);

    Task<int> CallOn(string other);

    Task<int> CallBackBy(string other);

    Task Remind();
}

[GenerateSerializer]
public sealed class CounterState
{
    [Id(0)] public int Value { get; set; }
}

public sealed class CounterGrain([PersistentState("counter")] IPersistentState<CounterState> state) : Grain, ICounterGrain, IRemindable
{
    public static readonly ConcurrentDictionary<string, int> Activations = new();
    public static readonly ConcurrentDictionary<string, DeactivationReasonCode> Deactivations = new();
    public static readonly ConcurrentDictionary<string, int> Ticks = new();

    private bool _busy;

    public override Task OnDeactivateAsync(DeactivationReason reason, CancellationToken cancellationToken)
    {
        Deactivations[this.GetPrimaryKeyString()] = reason.ReasonCode;
        return Task.CompletedTask;
    }

    public override Task OnActivateAsync(CancellationToken cancellationToken)
    {
        Activations.AddOrUpdate(this.GetPrimaryKeyString(), 1, (_, count) => count + 1);
        return Task.CompletedTask;
    }

    public async Task<int> AddSlowly(int amount)
    {
        if (_busy)
        {
            throw new InvalidOperationException("two turns at once");
        }
        _busy = true;
        int value = state.State.Value;
        await Task.Delay(1);
        await Task.Yield();
        state.State.Value = value + amount;
        await state.WriteStateAsync();
        _busy = false;
        return state.State.Value;
    }

    public Task<int> Get() => Task.FromResult(state.State.Value);

    public Task<int> Peek() => Task.FromResult(-1);

    public Task Fail() => throw new InvalidOperationException("as asked");

    public Task Forget() => throw new InvalidOperationException("nobody hears this");

    public Task Leave()
    {
        DeactivateOnIdle();
        return Task.CompletedTask;
    }

    public Task Hang() => Task.Delay(Timeout.Infinite);

    public Task StartTimer(int milliseconds)
    {
        TimeSpan often = TimeSpan.FromMilliseconds(milliseconds);
        this.RegisterGrainTimer(_ =>
        {
            Ticks.AddOrUpdate(this.GetPrimaryKeyString(), 1, (_, count) => count + 1);
            throw new InvalidOperationException("a failing callback ticks on");
        }, new GrainTimerCreationOptions { DueTime = often, Period = often });
        return Task.CompletedTask;
    }

    public Task<int> CallOn(string other) => GrainFactory.GetGrain<ICounterGrain>(other).CallBackBy(this.GetPrimaryKeyString());

    public Task<int> CallBackBy(string other) => GrainFactory.GetGrain<ICounterGrain>(other).Get();

    public Task Remind() => this.RegisterOrUpdateReminder("r", TimeSpan.Zero, TimeSpan.FromMinutes(1));

    public Task ReceiveReminder(string reminderName, TickStatus status)
    {
        Ticks.AddOrUpdate("reminder " + this.GetPrimaryKeyString(), 1, (_, count) => count + 1);
        return Task.CompletedTask;
    }
}

public sealed record MutableParcel(List<int> Items);

public interface ISenderGrain : IGrainWithStringKey
{
    Task Send(MutableParcel parcel);
}

public sealed class SenderGrain : Grain, ISenderGrain
{
    public Task Send(MutableParcel parcel) => Task.CompletedTask;
}
