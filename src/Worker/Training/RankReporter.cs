using System.Globalization;
using System.Text;
using Microsoft.Win32.SafeHandles;
using Trainer.Contracts;
using Trainer.Worker.Reports;

namespace Trainer.Worker.Training;

/// <summary>What a rank tells the world: log lines on standard output, and the report that its heartbeats carry.</summary>
public sealed class RankReporter(int attempt, int rank, TimeProvider time) : IDisposable
{
    private readonly Lock _gate = new();
    private readonly SortedDictionary<string, string> _troubles = new(StringComparer.Ordinal);
    private readonly SpoolFile? _log = StandardOutput();
    private RankReport _report = new() { Attempt = attempt, Rank = rank, Pid = Environment.ProcessId };
    private long _ticks;

    public RankReport Report => Volatile.Read(ref _report) with { Ticks = Interlocked.Read(ref _ticks), Trouble = AllTrouble() };

    /// <summary>Called on the training thread only.</summary>
    public void Update(Func<RankReport, RankReport> change) => Volatile.Write(ref _report, change(_report));

    public void Enter(RankPhase phase, string? message = null) => Update(report => report with { Phase = phase, Message = message });

    /// <summary>What comes now, such as "step 12: all-reduce of gradients".</summary>
    public void Begin(string activity) => Update(report => report with { Activity = activity });

    /// <summary>Something went forward: see <see cref="RankReport.Ticks"/>. Called on any thread.</summary>
    public void Tick() => Interlocked.Increment(ref _ticks);

    /// <summary>Something is wrong, and the training goes on. Called on any thread.</summary>
    /// <param name="about">What it is about: one trouble each.</param>
    /// <param name="what">Null: it is over.</param>
    public void Trouble(string about, string? what)
    {
        lock (_gate)
        {
            if (_troubles.GetValueOrDefault(about) == what)
            {
                return;
            }
            if (what is null)
            {
                _troubles.Remove(about);
            }
            else
            {
                _troubles[about] = what;
            }
        }
        Log(what is null ? $"{about}: well again" : $"warning: {what}");
    }

    /// <summary>Called on any thread. Lines that a full disk does not take wait for <see cref="Flush"/>.</summary>
    public void Log(string line)
    {
        string text = $"{time.GetUtcNow().ToString("yyyy-MM-dd HH:mm:ss.fff", CultureInfo.InvariantCulture)}Z {line}";
        try
        {
            if (_log is null)
            {
                Console.Out.WriteLine(text);
            }
            else
            {
                _log.Append(Encoding.UTF8.GetBytes(text + "\n"));
            }
        }
        catch (IOException)
        {
            // Nobody reads a pipe any more, or more waits than is worth its memory: the training goes on.
        }
    }

    /// <summary>Writes lines that wait, if there is room now.</summary>
    public void Flush()
    {
        _log?.Flush();
        Trouble("log", _log?.Problem is { } problem ? $"the log waits in memory, because it cannot be written: {problem}" : null);
    }

    public void Dispose() => _log?.Dispose();

    /// <summary>Null when it is no file.</summary>
    private static SpoolFile? StandardOutput()
    {
        var handle = new SafeFileHandle(1, ownsHandle: false);
        try
        {
            _ = RandomAccess.GetLength(handle);
            return new SpoolFile(handle);
        }
        catch (NotSupportedException)
        {
            return null;
        }
    }

    private string? AllTrouble()
    {
        lock (_gate)
        {
            return _troubles.Count == 0 ? null : string.Join("; ", _troubles.Values);
        }
    }
}
