using System.Globalization;
using Microsoft.Data.Sqlite;
using Microsoft.Extensions.Logging;
using Orleans.Runtime;
using Orleans.Storage;

namespace Orleans.Embedded;

internal sealed record Reminder(GrainId Grain, string ReminderName, DateTime FirstTick, TimeSpan Period) : IGrainReminder;

/// <summary>
/// Grain states and reminders in one SQLite file: WAL, every commit reaches the disk, writes checked by ETag. Compiled into the
/// coordinator too when the Orleans packages run the grains, so that a file serves either engine.
/// </summary>
internal sealed class SqliteStore : IAsyncDisposable
{
    private readonly string _path;
    private readonly SqliteWriter _writer;
    private readonly SemaphoreSlim _turn = new(1, 1);
    private SqliteConnection? _reader;

    public SqliteStore(string path, ILogger log)
    {
        _path = path;
        _writer = new SqliteWriter(Open, log);
    }

    public Task<(string Json, long Version)?> ReadAsync(GrainId id, string state) => ReadAsync<(string, long)?>(connection =>
    {
        using SqliteCommand command = Command(connection,
            "SELECT json, version FROM grain_state WHERE type = $type AND key = $key AND name = $name", id, state);
        using SqliteDataReader row = command.ExecuteReader();
        return row.Read() ? (row.GetString(0), row.GetInt64(1)) : null;
    });

    /// <summary>Returns the new version.</summary>
    /// <param name="id">The grain.</param>
    /// <param name="state">Name of the state.</param>
    /// <param name="json">What to store.</param>
    /// <param name="version">The version that was read; 0 when nothing was there.</param>
    /// <exception cref="InconsistentStateException">Another version is stored.</exception>
    public Task<long> WriteAsync(GrainId id, string state, string json, long version) => _writer.RunAsync(connection =>
    {
        using SqliteCommand command = Command(connection, version == 0
            ? "INSERT INTO grain_state (type, key, name, json, version) VALUES ($type, $key, $name, $json, 1) ON CONFLICT DO NOTHING"
            : "UPDATE grain_state SET json = $json, version = version + 1 WHERE type = $type AND key = $key AND name = $name AND version = $version", id, state);
        command.Parameters.AddWithValue("$json", json);
        command.Parameters.AddWithValue("$version", version);
        return command.ExecuteNonQuery() == 1 ? version + 1 : throw Inconsistent(id, state, version);
    });

    public Task ClearAsync(GrainId id, string state, long version) => _writer.RunAsync(connection =>
    {
        using SqliteCommand command = Command(connection,
            "DELETE FROM grain_state WHERE type = $type AND key = $key AND name = $name AND version = $version", id, state);
        command.Parameters.AddWithValue("$version", version);
        return command.ExecuteNonQuery() == 1 || version == 0 ? 0 : throw Inconsistent(id, state, version);
    });

    /// <param name="grain">Of this grain only.</param>
    public Task<List<Reminder>> ReadRemindersAsync(GrainId? grain = null) => ReadAsync(connection =>
    {
        const string All = "SELECT type, key, name, first_tick, period FROM reminder";
        using SqliteCommand command = grain is { } one ? Command(connection, All + " WHERE type = $type AND key = $key", one) : new SqliteCommand(All, connection);
        using SqliteDataReader row = command.ExecuteReader();
        var reminders = new List<Reminder>();
        while (row.Read())
        {
            reminders.Add(new Reminder(GrainId.Create(row.GetString(0), row.GetString(1)), row.GetString(2),
                new DateTime(row.GetInt64(3), DateTimeKind.Utc), TimeSpan.FromTicks(row.GetInt64(4))));
        }
        return reminders;
    });

    public Task WriteReminderAsync(Reminder reminder) => _writer.RunAsync(connection =>
    {
        using SqliteCommand command = Command(connection,
            "INSERT OR REPLACE INTO reminder (type, key, name, first_tick, period) VALUES ($type, $key, $name, $first, $period)", reminder.Grain, reminder.ReminderName);
        command.Parameters.AddWithValue("$first", reminder.FirstTick.Ticks);
        command.Parameters.AddWithValue("$period", reminder.Period.Ticks);
        return command.ExecuteNonQuery();
    });

    /// <returns>How many there were.</returns>
    public Task<int> DeleteReminderAsync(GrainId grain, string name) => _writer.RunAsync(connection =>
    {
        using SqliteCommand command = Command(connection, "DELETE FROM reminder WHERE type = $type AND key = $key AND name = $name", grain, name);
        return command.ExecuteNonQuery();
    });

    public async ValueTask DisposeAsync()
    {
        await _writer.DisposeAsync();
        await _turn.WaitAsync();
        try
        {
            if (_reader is not null)
            {
                await _reader.DisposeAsync();
                _reader = null;
            }
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>Sees what is committed; a lock of another writer does not stop it.</summary>
    private async Task<T> ReadAsync<T>(Func<SqliteConnection, T> work)
    {
        await _turn.WaitAsync();
        try
        {
            return work(_reader ??= Open());
        }
        finally
        {
            _turn.Release();
        }
    }

    private SqliteConnection Open()
    {
        // Not pooled: closing releases the file. A lock of another process is waited for, 30 s at most.
        var connection = new SqliteConnection(new SqliteConnectionStringBuilder { DataSource = _path, Pooling = false, DefaultTimeout = 30 }.ToString());
        connection.Open();
        using var command = new SqliteCommand("""
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = FULL;
            PRAGMA cache_size = -32768;
            CREATE TABLE IF NOT EXISTS grain_state (type TEXT NOT NULL, key TEXT NOT NULL, name TEXT NOT NULL,
                json TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (type, key, name)) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS reminder (type TEXT NOT NULL, key TEXT NOT NULL, name TEXT NOT NULL,
                first_tick INTEGER NOT NULL, period INTEGER NOT NULL, PRIMARY KEY (type, key, name)) WITHOUT ROWID;
            """, connection);
        command.ExecuteNonQuery();
        return connection;
    }

    private static SqliteCommand Command(SqliteConnection connection, string sql, GrainId id, string name)
    {
        SqliteCommand command = Command(connection, sql, id);
        command.Parameters.AddWithValue("$name", name);
        return command;
    }

    private static SqliteCommand Command(SqliteConnection connection, string sql, GrainId id)
    {
        var command = new SqliteCommand(sql, connection);
        command.Parameters.AddWithValue("$type", id.Type.ToString());
        command.Parameters.AddWithValue("$key", id.Key.ToString());
        return command;
    }

    private static InconsistentStateException Inconsistent(GrainId id, string state, long version) =>
        new($"state {state} of {id} was written by somebody else since version {version} was read",
            "another version", version.ToString(CultureInfo.InvariantCulture));
}
