using Microsoft.Extensions.Logging;
using Orleans.Runtime;

namespace Orleans.Embedded;

/// <summary>Sends ticks through the activation's queue; the next one is armed when the last has ended.</summary>
internal sealed partial class GrainTimer : IGrainTimer
{
    private readonly Activation _activation;
    private readonly Func<CancellationToken, Task> _callback;
    private readonly GrainTimerCreationOptions _options;
    private readonly CancellationTokenSource _ended = new();
    private readonly ITimer _clock;
    private readonly CancellationToken _endedToken;
    private TimeSpan _period;
    private bool _ticking;
    private bool _disposed;

    public GrainTimer(Activation activation, Func<CancellationToken, Task> callback, GrainTimerCreationOptions options)
    {
        _activation = activation;
        _callback = callback;
        _options = options;
        _endedToken = _ended.Token;
        // The tick is nobody's call: it must not inherit the request that made the timer.
        using (ExecutionContext.SuppressFlow())
        {
            _clock = activation.Silo.Time.CreateTimer(_ => Tick(), null, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        }
    }

    public void Change(TimeSpan dueTime, TimeSpan period)
    {
        lock (_clock)
        {
            _period = period;
            if (!_disposed && !_ticking)
            {
                _clock.Change(dueTime, Timeout.InfiniteTimeSpan);
            }
        }
    }

    public void Dispose()
    {
        lock (_clock)
        {
            if (_disposed)
            {
                return;
            }
            _disposed = true;
            _clock.Dispose();
            _ended.Cancel();
            _ended.Dispose();
        }
        _activation.Remove(this);
    }

    private void Tick()
    {
        lock (_clock)
        {
            if (_disposed || _ticking)
            {
                return;
            }
            _ticking = true;
        }
        var request = new Request(_activation.GrainId, "timer", RunAsync) { Interleaves = _options.Interleave, IsTick = !_options.KeepAlive };
        lock (_activation.Silo.Lock)
        {
            _activation.TryAdd(request);
        }
    }

    private async Task<object?> RunAsync(object grain)
    {
        try
        {
            await _callback(_endedToken);
        }
        catch (Exception error) when (error is not Storage.InconsistentStateException)
        {
            LogFailed(_activation.Silo.Log, _activation.GrainId, error);
        }
        finally
        {
            lock (_clock)
            {
                _ticking = false;
                if (!_disposed)
                {
                    _clock.Change(_period, Timeout.InfiniteTimeSpan);
                }
            }
        }
        return null;
    }

    [LoggerMessage(Level = LogLevel.Error, Message = "A timer of grain {Grain} failed; it ticks on")]
    private static partial void LogFailed(ILogger log, GrainId grain, Exception error);
}
