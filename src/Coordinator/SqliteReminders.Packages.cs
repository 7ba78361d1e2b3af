using Orleans;
using Orleans.Embedded;
using Orleans.Runtime;

namespace Trainer.Coordinator;

/// <summary>Reminders in the coordinator's SQLite file. One silo writes them, so that no ETag is needed.</summary>
internal sealed class SqliteReminders(SqliteStore store) : IReminderTable
{
    private const string ETag = "1";

    public async Task<ReminderTableData> ReadRows(GrainId grainId) => Table(await store.ReadRemindersAsync(grainId));

    public async Task<ReminderTableData> ReadRows(uint begin, uint end) => Table((await store.ReadRemindersAsync()).Where(reminder =>
    {
        uint hash = reminder.Grain.GetUniformHashCode();
        return begin < end ? begin < hash && hash <= end : begin < hash || hash <= end;
    }));

    public async Task<ReminderEntry?> ReadRow(GrainId grainId, string reminderName) =>
        (await ReadRows(grainId)).Reminders.FirstOrDefault(reminder => reminder.ReminderName == reminderName);

    public async Task<string?> UpsertRow(ReminderEntry entry)
    {
        await store.WriteReminderAsync(new Reminder(entry.GrainId, entry.ReminderName, entry.StartAt, entry.Period));
        return ETag;
    }

    public async Task<bool> RemoveRow(GrainId grainId, string reminderName, string eTag) => await store.DeleteReminderAsync(grainId, reminderName) > 0;

    public Task TestOnlyClearTable() => throw new NotSupportedException();

    private static ReminderTableData Table(IEnumerable<Reminder> reminders) => new(reminders.Select(reminder => new ReminderEntry
    {
        GrainId = reminder.Grain,
        ReminderName = reminder.ReminderName,
        StartAt = reminder.FirstTick,
        Period = reminder.Period,
        ETag = ETag,
    }));
}
