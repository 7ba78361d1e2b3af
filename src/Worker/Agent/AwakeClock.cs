namespace Trainer.Worker.Agent;

/// <summary>
/// Time during which this process ran. While it is stopped, or the machine sleeps, nobody can be heard: the silence of ranks must
/// not grow by that. Read it at least once a second.
/// </summary>
internal sealed class AwakeClock(TimeProvider time)
{
    private static readonly TimeSpan s_longestStep = TimeSpan.FromSeconds(2);

    private readonly Lock _gate = new();
    private long _last = time.GetTimestamp();
    private TimeSpan _now;

    public TimeSpan Now
    {
        get
        {
            lock (_gate)
            {
                long last = _last;
                _last = time.GetTimestamp();
                TimeSpan step = time.GetElapsedTime(last, _last);
                return _now += step < s_longestStep ? step : s_longestStep;
            }
        }
    }
}
