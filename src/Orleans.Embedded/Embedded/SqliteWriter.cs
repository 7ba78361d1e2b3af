using System.Diagnostics;
using Microsoft.Data.Sqlite;
using Microsoft.Extensions.Logging;

namespace Orleans.Embedded;

/// <summary>
/// Writes to one SQLite file from a thread of its own. Whatever waits goes into one transaction, so that many writers share one
/// wait for the disk; each learns of its write only after the commit has reached the disk.
/// </summary>
internal sealed partial class SqliteWriter(Func<SqliteConnection> open, ILogger log) : IAsyncDisposable
{
    private const int MostAtOnce = 512;

    private static readonly TimeSpan s_remarkable = TimeSpan.FromSeconds(2);

    /// <summary>Between two commits while several share each: on a fast disk hundreds of small ones a second would cost more than what they hold.</summary>
    private static readonly TimeSpan s_shared = TimeSpan.FromMilliseconds(4);

    private readonly Queue<Change> _waiting = [];
    private Task? _thread;
    private bool _closed;

    /// <summary>Runs the work in a transaction that holds or fails as a whole; what the work itself throws is its caller's alone.</summary>
    public async Task<T> RunAsync<T>(Func<SqliteConnection, T> work)
    {
        var change = new Change(connection => work(connection));
        lock (_waiting)
        {
            ObjectDisposedException.ThrowIf(_closed, this);
            _thread ??= Task.Factory.StartNew(WriteAll, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
            _waiting.Enqueue(change);
            Monitor.Pulse(_waiting);
        }
        return (T)(await change.Done)!;
    }

    /// <summary>Writes what waits, then ends.</summary>
    public async ValueTask DisposeAsync()
    {
        lock (_waiting)
        {
            _closed = true;
            Monitor.Pulse(_waiting);
        }
        await (_thread ?? Task.CompletedTask);
    }

    private void WriteAll()
    {
        SqliteConnection? connection = null;
        while (Take() is { Length: > 0 } changes)
        {
            long start = Stopwatch.GetTimestamp();
            try
            {
                Write(connection ??= open(), changes);
            }
            catch (Exception error)
            {
                connection?.Dispose();
                connection = null;
                Array.ForEach(changes, change => change.Fail(error));
            }
            Array.ForEach(changes, change => change.Complete());
            TimeSpan took = Stopwatch.GetElapsedTime(start);
            if (took > s_remarkable)
            {
                LogSlow(took.TotalSeconds, changes.Length);
            }
            if (changes.Length > 1 && took < s_shared)
            {
                Thread.Sleep(s_shared - took);
            }
        }
        connection?.Dispose();
    }

    private static void Write(SqliteConnection connection, Change[] changes)
    {
        // Takes the lock at once: it is waited for here, and not between two changes.
        Execute(connection, "BEGIN IMMEDIATE");
        foreach (Change change in changes)
        {
            change.Run(connection);
        }
        Execute(connection, "COMMIT");
    }

    private static void Execute(SqliteConnection connection, string sql)
    {
        using var command = new SqliteCommand(sql, connection);
        command.ExecuteNonQuery();
    }

    /// <summary>Waits for changes; none: it is over.</summary>
    private Change[] Take()
    {
        lock (_waiting)
        {
            while (_waiting.Count == 0 && !_closed)
            {
                Monitor.Wait(_waiting);
            }
            var changes = new Change[Math.Min(_waiting.Count, MostAtOnce)];
            for (int i = 0; i < changes.Length; i++)
            {
                changes[i] = _waiting.Dequeue();
            }
            return changes;
        }
    }

    private sealed class Change(Func<SqliteConnection, object?> work)
    {
        private readonly TaskCompletionSource<object?> _done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private object? _answer;
        private Exception? _error;

        public Task<object?> Done => _done.Task;

        public void Run(SqliteConnection connection)
        {
            try
            {
                _answer = work(connection);
            }
            catch (Exception error)
            {
                _error = error;
            }
        }

        /// <summary>The transaction failed, and this with it.</summary>
        public void Fail(Exception error) => _error ??= error;

        public void Complete()
        {
            if (_error is null)
            {
                _done.SetResult(_answer);
            }
            else
            {
                _done.SetException(_error);
            }
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "The database was locked or slow: {Changes} changes waited {Seconds:0.0} s for it")]
    private partial void LogSlow(double seconds, int changes);
}
