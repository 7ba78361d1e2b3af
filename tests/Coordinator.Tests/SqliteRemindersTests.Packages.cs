using Microsoft.Extensions.Logging.Abstractions;
using Orleans;
using Orleans.Embedded;
using Orleans.Runtime;
using Trainer.Coordinator;

namespace Coordinator.Tests;

/// <summary>Orleans' reminders in the coordinator's SQLite file.</summary>
public sealed class SqliteRemindersTests
{
    [Fact]
    public async Task Reminders_are_found_by_grain_by_name_and_by_range()
    {
        string folder = Directory.CreateTempSubdirectory("tr").FullName;
        await using var store = new SqliteStore(Path.Combine(folder, "coordinator.db"), NullLogger.Instance);
        var table = new SqliteReminders(store);
        GrainId one = GrainId.Create("job", "one"), other = GrainId.Create("job", "other");
        DateTime start = DateTime.UtcNow;
        foreach ((GrainId grain, string name) in new[] { (one, "wake-up"), (one, "look"), (other, "wake-up") })
        {
            await table.UpsertRow(new ReminderEntry { GrainId = grain, ReminderName = name, StartAt = start, Period = TimeSpan.FromMinutes(1) });
        }

        Assert.Equal(["look", "wake-up"], (await table.ReadRows(one)).Reminders.Select(reminder => reminder.ReminderName).Order());
        Assert.Equal((other, "wake-up", start, TimeSpan.FromMinutes(1)), await table.ReadRow(other, "wake-up") is { } found ? (found.GrainId, found.ReminderName, found.StartAt, found.Period) : default);
        Assert.Null(await table.ReadRow(other, "look"));
        uint hash = other.GetUniformHashCode();
        Assert.Contains((await table.ReadRows(hash - 1, hash)).Reminders, reminder => reminder.GrainId == other);
        Assert.DoesNotContain((await table.ReadRows(hash, hash + 1)).Reminders, reminder => reminder.GrainId == other);
        Assert.Equal(3, (await table.ReadRows(0, 0)).Reminders.Count);

        Assert.True(await table.RemoveRow(one, "look", "1"));
        Assert.False(await table.RemoveRow(one, "look", "1"));
        Assert.Equal("wake-up", Assert.Single((await table.ReadRows(one)).Reminders).ReminderName);
        Directory.Delete(folder, recursive: true);
    }
}
