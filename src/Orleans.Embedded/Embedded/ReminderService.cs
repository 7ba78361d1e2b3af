using Microsoft.Extensions.Logging;
using Orleans.Runtime;

namespace Orleans.Embedded;

/// <summary>Durable wake-ups: stored before they are armed, at least a minute apart, missed ones come once.</summary>
internal sealed partial class ReminderService(Silo silo)
{
    private static readonly TimeSpan s_least = TimeSpan.FromMinutes(1);

    private readonly Dictionary<(GrainId, string), (Reminder Reminder, ITimer Clock)> _armed = [];

    public async Task StartAsync()
    {
        foreach (Reminder reminder in await silo.Store.ReadRemindersAsync())
        {
            Arm(reminder);
        }
    }

    public void Stop()
    {
        lock (_armed)
        {
            foreach ((_, ITimer clock) in _armed.Values)
            {
                clock.Dispose();
            }
            _armed.Clear();
        }
    }

    public async Task<IGrainReminder> RegisterAsync(GrainId grain, string name, TimeSpan dueTime, TimeSpan period)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(period, s_least);
        ArgumentOutOfRangeException.ThrowIfLessThan(dueTime, TimeSpan.Zero);
        var reminder = new Reminder(grain, name, silo.Time.GetUtcNow().UtcDateTime + dueTime, period);
        await silo.Store.WriteReminderAsync(reminder);
        Arm(reminder);
        return reminder;
    }

    public Task<IGrainReminder?> FindAsync(GrainId grain, string name)
    {
        lock (_armed)
        {
            return Task.FromResult<IGrainReminder?>(_armed.TryGetValue((grain, name), out (Reminder Reminder, ITimer) armed) ? armed.Reminder : null);
        }
    }

    public async Task UnregisterAsync(GrainId grain, string name)
    {
        await silo.Store.DeleteReminderAsync(grain, name);
        lock (_armed)
        {
            if (_armed.Remove((grain, name), out (Reminder, ITimer Clock) armed))
            {
                armed.Clock.Dispose();
            }
        }
    }

    private void Arm(Reminder reminder)
    {
        DateTime now = silo.Time.GetUtcNow().UtcDateTime;
        TimeSpan late = now - reminder.FirstTick;
        TimeSpan due = late < TimeSpan.Zero ? -late : TimeSpan.Zero;
        lock (_armed)
        {
            if (_armed.Remove((reminder.Grain, reminder.ReminderName), out (Reminder, ITimer Clock) old))
            {
                old.Clock.Dispose();
            }
            using AsyncFlowControl noFlow = ExecutionContext.IsFlowSuppressed() ? default : ExecutionContext.SuppressFlow();
            _armed.Add((reminder.Grain, reminder.ReminderName), (reminder, silo.Time.CreateTimer(_ => Tick(reminder), null, due, reminder.Period)));
        }
    }

    private void Tick(Reminder reminder)
    {
        var status = new TickStatus(reminder.FirstTick, reminder.Period, silo.Time.GetUtcNow().UtcDateTime);
        var request = new Request(reminder.Grain, nameof(IRemindable.ReceiveReminder), async grain =>
        {
            try
            {
                await ((IRemindable)grain).ReceiveReminder(reminder.ReminderName, status);
            }
            catch (Exception error) when (error is not Storage.InconsistentStateException)
            {
                LogFailed(silo.Log, reminder.ReminderName, reminder.Grain, error);
            }
            return null;
        });
        silo.Deliver(request);
    }

    [LoggerMessage(Level = LogLevel.Error, Message = "Reminder {Reminder} of grain {Grain} failed; it comes again")]
    private static partial void LogFailed(ILogger log, string reminder, GrainId grain, Exception error);
}
