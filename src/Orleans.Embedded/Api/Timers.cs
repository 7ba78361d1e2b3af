using Orleans.Embedded;
using Orleans.Runtime;

namespace Orleans.Runtime
{
    public interface IGrainTimer : IDisposable
    {
        void Change(TimeSpan dueTime, TimeSpan period);
    }

    /// <summary>The period counts from the end of a callback; callbacks of one timer never overlap.</summary>
    public readonly struct GrainTimerCreationOptions()
    {
        public required TimeSpan DueTime { get; init; }
        public required TimeSpan Period { get; init; }

        /// <summary>Callbacks run between the turns of a call that awaits.</summary>
        public bool Interleave { get; init; }

        /// <summary>Ticks keep the activation from being collected.</summary>
        public bool KeepAlive { get; init; }
    }

    public interface IGrainReminder
    {
        string ReminderName { get; }
    }

    public readonly struct TickStatus(DateTime firstTickTime, TimeSpan period, DateTime currentTickTime)
    {
        public DateTime FirstTickTime { get; } = firstTickTime;
        public TimeSpan Period { get; } = period;
        public DateTime CurrentTickTime { get; } = currentTickTime;
    }
}

namespace Orleans
{
    /// <summary>A grain that durable reminders wake.</summary>
    public interface IRemindable : IGrain
    {
        Task ReceiveReminder(string reminderName, TickStatus status);
    }

    public static class GrainBaseExtensions
    {
        public static IGrainTimer RegisterGrainTimer(this IGrainBase grain, Func<CancellationToken, Task> callback, GrainTimerCreationOptions options) =>
            ((Activation)grain.GrainContext).AddTimer(callback, options);
    }

    public static class GrainReminderExtensions
    {
        /// <summary>Due time and period are at least one minute.</summary>
        public static Task<IGrainReminder> RegisterOrUpdateReminder(this IGrainBase grain, string reminderName, TimeSpan dueTime, TimeSpan period) =>
            Reminders(grain).RegisterAsync(grain.GrainContext.GrainId, reminderName, dueTime, period);

        public static Task<IGrainReminder?> GetReminder(this IGrainBase grain, string reminderName) =>
            Reminders(grain).FindAsync(grain.GrainContext.GrainId, reminderName);

        public static Task UnregisterReminder(this IGrainBase grain, IGrainReminder reminder) =>
            Reminders(grain).UnregisterAsync(grain.GrainContext.GrainId, reminder.ReminderName);

        private static ReminderService Reminders(IGrainBase grain) => ((Activation)grain.GrainContext).Silo.Reminders;
    }
}
