using System.Diagnostics;
using System.Text;
using System.Text.Json;
using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>
/// One rank as the agent sees it. Its end is noticed by whoever looks, one at a time; reports come from any thread.
/// </summary>
internal sealed class SupervisedRank : IDisposable
{
    private const int LongestWords = 200;

    private static readonly TimeSpan s_exitTakes = TimeSpan.FromSeconds(10);

    private readonly Lock _gate = new();
    private readonly AttemptFiles _files;
    private readonly Process? _child;
    private RankState _state;
    private TimeSpan _heard;
    private TimeSpan _moved;
    private (TimeSpan Moved, long Ticks) _worked;
    private TimeSpan? _resultSeen;
    private string? _condemned;
    private bool _stacksAsked;

    private SupervisedRank(RankState state, AttemptFiles files, Process? child, string? device, TimeSpan now)
    {
        _state = state;
        _files = files;
        _child = child;
        Device = device;
        _heard = _moved = now;
    }

    public RankName Name => _state.Name;
    public bool IsAlive => _state.Alive;
    public ProcessIdentity? Process => _state.Process;

    /// <summary>The CUDA device that it has.</summary>
    public string? Device { get; }

    public string Stacks => _files.StacksOf(Name.Rank);

    /// <summary>Started by this agent: how it ends can be known.</summary>
    public static SupervisedRank Started(RankName name, AttemptFiles files, Process child, string? device, TimeSpan now) =>
        new(new RankState
        {
            Name = name,
            // One that has ended already is known by being gone.
            Process = ProcessTable.Find(child.Id) ?? new ProcessIdentity { Pid = child.Id, StartTime = 0 },
            Alive = true,
        }, files, child, device, now);

    /// <summary>Started by an agent before this one.</summary>
    public static SupervisedRank Found(FoundRank found, AttemptFiles files, TimeSpan now) =>
        new(new RankState { Name = found.Name, Process = found.Process, Alive = true }, files, null, found.Device, now);

    /// <summary>Without a living process, and none will come.</summary>
    /// <param name="process">Null when it has never been started.</param>
    public static SupervisedRank Dead(RankName name, ProcessIdentity? process, AttemptFiles files, string words, TimeSpan now)
    {
        var rank = new SupervisedRank(new RankState { Name = name, Process = process }, files, null, null, now);
        rank.End(words);
        return rank;
    }

    /// <returns>True when it has just ended.</returns>
    public bool Look(TimeSpan now)
    {
        if (!IsAlive)
        {
            return false;
        }
        if (_child is { HasExited: false } || (_child is null && ProcessTable.IsAlive(Process!)))
        {
            // Its last act is not its last moment: one that is exiting is not disturbed, one that cannot exit is told apart.
            if (_state.Result is null && ReadResult(out _) is { } result)
            {
                _resultSeen ??= now;
                Change(state => state with { Result = now - _resultSeen > s_exitTakes ? result : null });
            }
            return false;
        }
        End(_child is null ? "its process is gone" : HowItEnded(_child.ExitCode));
        return true;
    }

    /// <returns>True when the coordinator should hear of it at once.</returns>
    public bool Hear(RankReport report, TimeSpan now)
    {
        lock (_gate)
        {
            RankReport? before = _state.Report;
            _state = _state with { Report = report };
            _heard = now;
            if (before is null || before.Ticks != report.Ticks || before.Phase != report.Phase)
            {
                _moved = now;
            }
            return before is null || before.Endpoint != report.Endpoint;
        }
    }

    public RankState State(TimeSpan now)
    {
        long ticks = Process is { } process && IsAlive ? ProcessTable.Use(process)?.CpuTicks ?? 0 : 0;
        lock (_gate)
        {
            if (_worked.Moved != _moved)
            {
                _worked = (_moved, ticks);
            }
            return _state with
            {
                SilentSeconds = (now - _heard).TotalSeconds,
                StillSeconds = (now - _moved).TotalSeconds,
                WorkedSeconds = Math.Max(0, ticks - _worked.Ticks) / ProcessTable.TicksPerSecond,
            };
        }
    }

    public void Measured(SlotUse? use) => Change(state => state with { Use = state.Alive ? use : null });

    /// <summary>The agent is about to kill it for this reason, which becomes its last words.</summary>
    public void Condemn(string why) => _condemned ??= IsAlive ? why : null;

    /// <returns>True the first time.</returns>
    public bool AskForStacks() => !_stacksAsked && (_stacksAsked = true);

    public void MarkStacksTaken() => Change(state => state with { StacksTaken = true });

    public void Dispose() => _child?.Dispose();

    private void End(string how)
    {
        RankResult? result = ReadResult(out string? problem);
        string words = _condemned is { } why ? $"killed by its agent: {why}" : problem ?? how + LastLine();
        Change(state => state with { Alive = false, Use = null, Result = result, LastWords = result is null ? words : null });
    }

    private void Change(Func<RankState, RankState> change)
    {
        lock (_gate)
        {
            _state = change(_state);
        }
    }

    private RankResult? ReadResult(out string? problem)
    {
        problem = null;
        try
        {
            return RankResult.Read(_files.ResultOf(Name.Rank));
        }
        catch (Exception error) when (error is JsonException or IOException or UnauthorizedAccessException)
        {
            problem = $"its result cannot be read ({error.Message})";
            return null;
        }
    }

    // Shells and .NET alike give 128 + signal to a process that a signal ended.
    private static string HowItEnded(int code) => code switch
    {
        128 + 4 => "killed by SIGILL",
        128 + 6 => "killed by SIGABRT",
        128 + 7 => "killed by SIGBUS",
        128 + 8 => "killed by SIGFPE",
        128 + 9 => "killed by SIGKILL",
        128 + 11 => "killed by SIGSEGV",
        128 + 15 => "killed by SIGTERM",
        > 128 and < 128 + 65 => $"killed by signal {code - 128}",
        _ => $"exited with code {code} without a result",
    };

    /// <summary>The last line of its stderr, which mostly says why.</summary>
    private string LastLine()
    {
        byte[] end = new byte[4096];
        try
        {
            using FileStream file = new(_files.StderrOf(Name.Rank), FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            file.Position = Math.Max(0, file.Length - end.Length);
            string text = Encoding.UTF8.GetString(end, 0, file.ReadAtLeast(end, end.Length, throwOnEndOfStream: false));
            return text.Split('\n').LastOrDefault(line => line.Trim().Length > 0)?.Trim() is { } line
                ? $"; its last words: {(line.Length > LongestWords ? line[..LongestWords] : line)}"
                : "";
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}
