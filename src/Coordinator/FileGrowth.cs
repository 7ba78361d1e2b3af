namespace Trainer.Coordinator;

/// <summary>
/// Waits for files that other processes write to change their length, by looking now and then: once for each file, however many
/// wait for it.
/// </summary>
public sealed class FileGrowth(TimeProvider time)
{
    private static readonly TimeSpan s_often = TimeSpan.FromMilliseconds(200);

    private readonly Lock _lock = new();
    private readonly Dictionary<(string Path, long Length), Wait> _waits = [];
    private bool _looking;

    /// <summary>0 when there is no such file, or the link leads nowhere.</summary>
    public static long LengthOf(string path)
    {
        var file = new FileInfo(path);
        return file.Exists && (file.ResolveLinkTarget(returnFinalTarget: true) ?? file) is FileInfo { Exists: true } found ? found.Length : 0;
    }

    /// <summary>Returns when the file no longer has this length, or after the time.</summary>
    public async Task WaitAsync(string path, long length, TimeSpan atMost, CancellationToken cancellationToken)
    {
        Wait wait = Enter((path, length));
        try
        {
            await wait.Changed.Task.WaitAsync(atMost, time, cancellationToken);
        }
        catch (TimeoutException)
        {
            // The caller looks for itself.
        }
        finally
        {
            Leave((path, length), wait);
        }
    }

    private Wait Enter((string, long) file)
    {
        lock (_lock)
        {
            if (!_waits.TryGetValue(file, out Wait? wait))
            {
                _waits.Add(file, wait = new Wait());
            }
            wait.Callers++;
            if (!_looking)
            {
                _looking = true;
                _ = Task.Run(LookAsync);
            }
            return wait;
        }
    }

    private void Leave((string, long) file, Wait wait)
    {
        lock (_lock)
        {
            if (--wait.Callers == 0)
            {
                Remove(file, wait);
            }
        }
    }

    private void Remove((string, long) file, Wait wait)
    {
        lock (_lock)
        {
            if (_waits.GetValueOrDefault(file) == wait)
            {
                _waits.Remove(file);
            }
        }
    }

    private async Task LookAsync()
    {
        while (true)
        {
            await Task.Delay(s_often, time);
            KeyValuePair<(string Path, long Length), Wait>[] waits;
            lock (_lock)
            {
                if (_waits.Count == 0)
                {
                    _looking = false;
                    return;
                }
                waits = [.. _waits];
            }
            foreach (((string path, long length), Wait wait) in waits)
            {
                if (HasChanged(path, length))
                {
                    Remove((path, length), wait);
                    wait.Changed.TrySetResult();
                }
            }
        }
    }

    private static bool HasChanged(string path, long length)
    {
        try
        {
            return LengthOf(path) != length;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // Whoever waits reads the file next, and learns why.
            return true;
        }
    }

    private sealed class Wait
    {
        public TaskCompletionSource Changed { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
        public int Callers { get; set; }
    }
}
