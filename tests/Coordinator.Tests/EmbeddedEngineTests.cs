using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Orleans;
using Orleans.Embedded;
using Orleans.Storage;

namespace Coordinator.Tests;

public sealed class EmbeddedEngineTests : IAsyncLifetime
{
    private readonly string _database = Path.Combine(Directory.CreateTempSubdirectory("silo").FullName, "state.db");
    private readonly string _key = Guid.NewGuid().ToString("N");
    private TimeSpan _timeout = TimeSpan.FromSeconds(30);
    private TimeSpan _collectionAge = TimeSpan.FromMinutes(15);
    private IHost? _host;

    private IGrainFactory Grains => _host!.Services.GetRequiredService<IGrainFactory>();
    private ICounterGrain Counter => Grains.GetGrain<ICounterGrain>(_key);

    public Task InitializeAsync() => StartAsync();

    public Task DisposeAsync() => StopAsync();

    [Fact]
    public async Task Turns_of_calls_never_overlap_and_no_write_is_lost()
    {
        await Task.WhenAll(Enumerable.Range(0, 50).Select(_ => Counter.AddSlowly(1)));

        Assert.Equal(50, await Counter.Get());
        Assert.Equal(1, CounterGrain.Activations[_key]);
    }

    [Fact]
    public async Task State_outlives_the_silo()
    {
        await Counter.AddSlowly(7);
        await StopAsync();
        await StartAsync();

        Assert.Equal(7, await Counter.Get());
    }

    [Fact]
    public async Task State_written_by_somebody_else_is_detected_and_read_again()
    {
        await Counter.AddSlowly(1);
        using IHost other = await NewHostAsync();
        ICounterGrain same = other.Services.GetRequiredService<IGrainFactory>().GetGrain<ICounterGrain>(_key);
        Assert.Equal(3, await same.AddSlowly(2));

        await Assert.ThrowsAsync<InconsistentStateException>(() => Counter.AddSlowly(10));

        Assert.Equal(3, await Counter.Get());
        Assert.Equal(13, await Counter.AddSlowly(10));
        await other.StopAsync();
    }

    [Fact]
    public async Task Errors_reach_the_caller_and_one_way_calls_return_at_once()
    {
        Assert.Equal("as asked", (await Assert.ThrowsAsync<InvalidOperationException>(Counter.Fail)).Message);
        await Counter.Forget();
        Assert.Equal(0, await Counter.Get());
    }

    [Fact]
    public async Task A_circle_of_calls_is_an_error_and_not_a_hang()
    {
        InvalidOperationException error = await Assert.ThrowsAsync<InvalidOperationException>(() => Counter.CallOn(_key + "b")).WaitAsync(TimeSpan.FromSeconds(20));

        Assert.Contains("deadlock", error.Message, StringComparison.Ordinal);
        Assert.Equal(0, await Counter.Get());
    }

    [Fact]
    public async Task Two_grains_that_call_each_other_at_once_do_not_hang()
    {
        Task<int>[] calls = [.. Enumerable.Range(0, 20).Select(i => i % 2 == 0 ? Counter.CallBackBy(_key + "b") : Grains.GetGrain<ICounterGrain>(_key + "b").CallBackBy(_key))];

        await Task.WhenAll(calls.Select(async call =>
        {
            try
            {
                await call;
            }
            catch (InvalidOperationException deadlock)
            {
                Assert.Contains("deadlock", deadlock.Message, StringComparison.Ordinal);
            }
        })).WaitAsync(TimeSpan.FromSeconds(20));
    }

    [Fact]
    public async Task A_call_without_a_reply_times_out_and_interleaving_calls_pass_it()
    {
        _timeout = TimeSpan.FromSeconds(1);
        await StopAsync();
        await StartAsync();
        Task hanging = Counter.Hang();

        Assert.Equal(-1, await Counter.Peek());
        Assert.Contains("Hang gave no reply within 1 s", (await Assert.ThrowsAsync<TimeoutException>(() => hanging)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Timers_tick_on_after_errors_and_die_with_the_activation()
    {
        await Counter.StartTimer(10);
        await UntilAsync(() => CounterGrain.Ticks.GetValueOrDefault(_key) >= 3);
        await Counter.Leave();
        await Counter.Get();
        int ticks = CounterGrain.Ticks[_key];
        await Task.Delay(100);

        Assert.Equal(ticks, CounterGrain.Ticks[_key]);
        Assert.Equal(2, CounterGrain.Activations[_key]);
    }

    [Fact]
    public async Task Idle_activations_are_collected_although_a_timer_ticks()
    {
        _collectionAge = TimeSpan.FromMilliseconds(300);
        await StopAsync();
        await StartAsync();
        await Counter.StartTimer(20);
        await UntilAsync(() => CounterGrain.Ticks.GetValueOrDefault(_key) >= 1);

        await UntilAsync(() => CounterGrain.Deactivations.ContainsKey(_key));

        Assert.Equal(DeactivationReasonCode.ActivationIdle, CounterGrain.Deactivations[_key]);
        Assert.Equal(0, await Counter.Get());
        Assert.True(CounterGrain.Activations[_key] >= 2);
    }

    [Fact]
    public async Task Reminders_outlive_the_silo()
    {
        await Counter.Remind();
        string name = "reminder " + _key;
        await UntilAsync(() => CounterGrain.Ticks.GetValueOrDefault(name) == 1);
        await StopAsync();
        await StartAsync();

        await UntilAsync(() => CounterGrain.Ticks.GetValueOrDefault(name) == 2);
    }

    [Fact]
    public async Task Mutable_arguments_are_refused()
    {
        NotSupportedException error = await Assert.ThrowsAsync<NotSupportedException>(() => Grains.GetGrain<ISenderGrain>("s").Send(new MutableParcel([])));

        Assert.Contains("[GenerateSerializer]", error.Message, StringComparison.Ordinal);
    }

    private async Task StartAsync() => _host = await NewHostAsync();

    private async Task StopAsync()
    {
        await _host!.StopAsync();
        await ((IAsyncDisposable)_host).DisposeAsync();
    }

    private async Task<IHost> NewHostAsync()
    {
        HostApplicationBuilder builder = Host.CreateApplicationBuilder();
        builder.Logging.ClearProviders();
        builder.UseOrleans(silo => silo.UseEmbeddedStorage(_database, options =>
        {
            options.ResponseTimeout = _timeout;
            options.CollectionAge = _collectionAge;
        }));
        IHost host = builder.Build();
        await host.StartAsync();
        return host;
    }

    private static async Task UntilAsync(Func<bool> holds)
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        while (!holds())
        {
            await Task.Delay(5, limit.Token);
        }
    }
}
