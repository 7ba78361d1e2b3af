using System.Collections.Concurrent;
using System.Collections.Immutable;
using System.ComponentModel;
using System.Diagnostics;
using Microsoft.Extensions.Logging;
using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>
/// Makes what runs here equal to what is ordered. <see cref="Pass"/> takes one step and never waits; it is repeated until nothing
/// is left to do, by one caller at a time. The other members may be called by anyone.
/// </summary>
internal sealed partial class RankSupervisor(AgentOptions options, AwakeClock clock, Pulse work, Pulse news, ILogger log) : IDisposable
{
    private readonly RankProcesses _processes = new(options);
    private readonly ConcurrentDictionary<RankName, SupervisedRank> _ranks = new();
    private readonly ConcurrentDictionary<JobId, int> _newest = new();

    // Null until the first orders: whatever runs, runs on.
    private volatile ImmutableDictionary<RankName, RankAssignment>? _wanted;
    private volatile IReadOnlyList<RankName> _refused = [];
    private volatile string? _condemned;
    private volatile bool _stopping;
    private bool _scanDue = true;

    // To say once what is done until it works.
    private readonly HashSet<ProcessIdentity> _killed = [];

    public bool AnyAlive => _ranks.Values.Any(rank => rank.IsAlive);

    public IEnumerable<RankName> Names => _ranks.Keys;

    public IEnumerable<SupervisedRank> Living => _ranks.Values.Where(rank => rank.IsAlive);

    public bool IsAlive(RankName name) => _ranks.TryGetValue(name, out SupervisedRank? rank) && rank.IsAlive;

    /// <summary>The newest attempt of a job that was ever ordered to run here.</summary>
    public int NewestAttempt(JobId job) => _newest.GetOrAdd(job, _processes.NewestAttempt);

    /// <summary>Finds what an agent before this one started.</summary>
    public void Attach()
    {
        foreach (FoundRank found in _processes.Find().Where(found => found.Leads))
        {
            Attach(found);
        }
    }

    /// <summary>These ranks, and no others, are to run.</summary>
    public void Obey(NodeOrders orders)
    {
        RankAssignment[] valid = [.. orders.Ranks.Where(IsValid).DistinctBy(rank => rank.Name)];
        foreach (RankAssignment rank in valid)
        {
            _newest[rank.Name.Job] = Math.Max(NewestAttempt(rank.Name.Job), rank.Name.Attempt);
        }
        ILookup<bool, RankAssignment> current = valid.ToLookup(rank => rank.Name.Attempt == NewestAttempt(rank.Name.Job));
        _refused = [.. current[false].Select(rank => rank.Name)];
        _wanted = current[true].ToImmutableDictionary(rank => rank.Name);
        work.Beat();
    }

    /// <summary>Orders every rank to save and end, whatever is ordered of it otherwise. None is started any more.</summary>
    public void StopAll() => _stopping = true;

    /// <summary>Kills every rank and starts no more.</summary>
    /// <param name="why">Becomes the last words of each.</param>
    public void KillAll(string why)
    {
        foreach (SupervisedRank rank in _ranks.Values)
        {
            rank.Condemn(why);
        }
        _condemned = why;
        _wanted ??= ImmutableDictionary<RankName, RankAssignment>.Empty;
        work.Beat();
    }

    /// <summary>A rank reports; the answer is its order.</summary>
    public RankReply Hear(JobId job, RankReport report)
    {
        var name = new RankName(job, report.Attempt, report.Rank);
        if (_ranks.TryGetValue(name, out SupervisedRank? rank) && rank.Hear(report, clock.Now))
        {
            news.Beat();
        }
        RankOrder going = _stopping ? RankOrder.Stop : RankOrder.Continue;
        if (_wanted is not { } wanted)
        {
            return new RankReply { Order = rank is null ? RankOrder.Fenced : going };
        }
        return wanted.TryGetValue(name, out RankAssignment? assignment)
            ? new RankReply { Order = assignment.Order is RankOrder.Continue ? going : assignment.Order, Rendezvous = assignment.Rendezvous }
            : new RankReply { Order = RankOrder.Fenced };
    }

    /// <summary>Everything that is known of the ranks of this node.</summary>
    public ImmutableArray<RankState> Report()
    {
        TimeSpan now = clock.Now;
        IEnumerable<RankState> refused = _refused
            .Where(name => !_ranks.ContainsKey(name))
            .Select(name => new RankState { Name = name, LastWords = $"attempt {NewestAttempt(name.Job)} of the job was ordered here" });
        return [.. _ranks.Values.Select(rank => rank.State(now)).Concat(refused)];
    }

    /// <returns>True when something is under way, so that another pass is due soon.</returns>
    public bool Pass()
    {
        // Read also when nobody else does, because it counts only what is read often.
        TimeSpan now = clock.Now;
        foreach (SupervisedRank rank in _ranks.Values.Where(rank => rank.Look(now)))
        {
            string how = Ending(rank.State(now));
            LogEnded(rank.Name.Job, rank.Name.Attempt, rank.Name.Rank, how);
            _scanDue = true;
            news.Beat();
        }
        if (_wanted is not { } wanted)
        {
            return false;
        }
        TakeStacks(wanted);
        bool settled = _ranks.Keys.All(IsWanted) && wanted.Keys.All(_ranks.ContainsKey);
        if (settled && !_scanDue)
        {
            Prepare(wanted.Count, now);
            return false;
        }
        IReadOnlyList<FoundRank> found = _processes.Find();
        bool killing = KillUnwanted(found);
        Forget(found);
        bool waiting = StartMissing(wanted, found);
        _scanDue = killing;
        return killing || waiting;

        bool IsWanted(RankName name) => Wanted(wanted, name);
    }

    public void Dispose()
    {
        foreach (SupervisedRank rank in _ranks.Values)
        {
            rank.Dispose();
        }
        _processes.Dispose();
    }

    /// <summary>When nothing else is to do: a rank that is wanted comes first.</summary>
    private void Prepare(int wanted, TimeSpan now)
    {
        try
        {
            _processes.Prepare(_condemned is null ? FreeSlots(options.Slots - wanted) : [], now);
        }
        catch (Win32Exception)
        {
            // Nor can a rank be started then, and that is told.
        }
    }

    private bool Wanted(ImmutableDictionary<RankName, RankAssignment> wanted, RankName name) => _condemned is null && wanted.ContainsKey(name);

    /// <summary>Also what children a rank leaves when it ends.</summary>
    private bool KillUnwanted(IReadOnlyList<FoundRank> found)
    {
        ImmutableDictionary<RankName, RankAssignment> wanted = _wanted!;
        (RankName Name, ProcessIdentity Process)[] unwanted =
        [
            .. found.Where(process => !Wanted(wanted, process.Name) || (!IsAlive(process.Name) && !Attach(process))).Select(process => (process.Name, process.Process)),
            // One whose environment cannot be read is not found.
            .. _ranks.Values.Where(rank => rank.IsAlive && !Wanted(wanted, rank.Name)).Select(rank => (rank.Name, rank.Process!)),
        ];
        foreach ((RankName name, ProcessIdentity process) in unwanted.Distinct())
        {
            if (_killed.Add(process))
            {
                LogKill(name.Job, name.Attempt, name.Rank, process.Pid);
            }
            ProcessTable.Kill(process);
        }
        if (unwanted.Length == 0)
        {
            _killed.Clear();
        }
        return unwanted.Length > 0;
    }

    /// <summary>Drops what is not wanted and really gone.</summary>
    private void Forget(IReadOnlyList<FoundRank> found)
    {
        foreach (SupervisedRank rank in _ranks.Values.Where(rank => !rank.IsAlive && !_wanted!.ContainsKey(rank.Name) && found.All(process => process.Name != rank.Name)))
        {
            if (_ranks.TryRemove(rank.Name, out _))
            {
                rank.Dispose();
                news.Beat();
            }
        }
    }

    /// <returns>True when one has to wait for the death of another.</returns>
    private bool StartMissing(ImmutableDictionary<RankName, RankAssignment> wanted, IReadOnlyList<FoundRank> found)
    {
        bool waiting = false;
        foreach (RankAssignment missing in wanted.Values.Where(rank => _condemned is null && !_stopping && !_ranks.ContainsKey(rank.Name)))
        {
            if (found.Any(process => process.Name.Job == missing.Name.Job && !wanted.ContainsKey(process.Name)))
            {
                waiting = true;
                continue;
            }
            waiting |= !Start(missing);
        }
        return waiting;
    }

    /// <returns>False when it has to wait.</returns>
    private bool Start(RankAssignment assignment)
    {
        (JobId job, int attempt, int number) = assignment.Name;
        AttemptFiles files = options.Home.Job(job).Attempt(attempt);
        string? device = FreeDevice();
        SupervisedRank rank;
        try
        {
            if (_processes.EverStarted(assignment.Name) is { } process)
            {
                rank = Dead("its process is gone", process);
            }
            else if (assignment.WorldSize == 0 || (assignment.Config is null && !File.Exists(options.Home.Job(job).Config)))
            {
                // Its job has not claimed it yet; or the config comes as long as the rank is not reported.
                return true;
            }
            else if (device is null && options.Kind == SlotKind.Cuda)
            {
                if (_ranks.Values.Any(other => other.IsAlive && !_wanted!.ContainsKey(other.Name)))
                {
                    return false;
                }
                rank = Dead($"no device is free on this node, which has {options.Devices.Length}");
            }
            else
            {
                Process child = _processes.Start(assignment, device);
                rank = SupervisedRank.Started(assignment.Name, files, child, device, clock.Now);
                child.Exited += (_, _) => work.Beat();
                child.EnableRaisingEvents = true;
                LogStarted(job, attempt, number, child.Id);
            }
        }
        catch (Exception error) when (error is Win32Exception or IOException or UnauthorizedAccessException)
        {
            rank = Dead($"it could not be started: {error.Message}");
        }
        _ranks[assignment.Name] = rank;
        news.Beat();
        return true;

        SupervisedRank Dead(string words, ProcessIdentity? process = null) => SupervisedRank.Dead(assignment.Name, process, files, words, clock.Now);
    }

    private string? FreeDevice() => FreeDevices().FirstOrDefault();

    private IEnumerable<string> FreeDevices() => options.Devices.Except(_ranks.Values.Where(rank => rank.IsAlive).Select(rank => rank.Device).OfType<string>());

    /// <returns>The device of each; null for a CPU slot.</returns>
    private IEnumerable<string?> FreeSlots(int count) => options.Kind == SlotKind.Cuda ? FreeDevices().Take(count) : Enumerable.Repeat<string?>(null, Math.Max(0, count));

    /// <returns>False when there is nothing to attach to.</returns>
    private bool Attach(FoundRank found)
    {
        if (!found.Leads || _ranks.ContainsKey(found.Name))
        {
            return false;
        }
        _ranks[found.Name] = SupervisedRank.Found(found, options.Home.Job(found.Name.Job).Attempt(found.Name.Attempt), clock.Now);
        LogFound(found.Name.Job, found.Name.Attempt, found.Name.Rank, found.Process.Pid);
        news.Beat();
        return true;
    }

    private void TakeStacks(ImmutableDictionary<RankName, RankAssignment> wanted)
    {
        foreach (SupervisedRank rank in _ranks.Values.Where(rank => wanted.TryGetValue(rank.Name, out RankAssignment? order) && order.TakeStacks && rank.AskForStacks()))
        {
            _ = Task.Run(() => TakeStacksAsync(rank));
        }
    }

    private async Task TakeStacksAsync(SupervisedRank rank)
    {
        try
        {
            if (rank is { IsAlive: true, Process: { } process })
            {
                await ThreadStacks.WriteAsync(process, rank.State(clock.Now), rank.Stacks);
                LogStacks(rank.Name.Job, rank.Name.Attempt, rank.Name.Rank, rank.Stacks);
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            LogNoStacks(rank.Name.Job, rank.Name.Attempt, rank.Name.Rank, error.Message);
        }
        // Also without a file: whoever waits for it must not wait for ever.
        rank.MarkStacksTaken();
        news.Beat();
    }

    private bool IsValid(RankAssignment rank)
    {
        bool valid = JobId.TryParse(rank.Name.Job.Value, out _) && rank.Name.Attempt > 0 && rank.Name.Rank >= 0 && (rank.Name.Rank < rank.WorldSize || rank.WorldSize == 0);
        if (!valid)
        {
            LogInvalid(rank.Name);
        }
        return valid;
    }

    private static string Ending(RankState state) => state.Result is { } result ? Spelling.Of(result.Outcome) : state.LastWords ?? "";

    [LoggerMessage(Level = LogLevel.Information, Message = "{Job}: started rank {Rank} of attempt {Attempt}, process {Pid}")]
    private partial void LogStarted(JobId job, int attempt, int rank, int pid);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Job}: found rank {Rank} of attempt {Attempt}, process {Pid}")]
    private partial void LogFound(JobId job, int attempt, int rank, int pid);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Job}: rank {Rank} of attempt {Attempt} ended: {How}")]
    private partial void LogEnded(JobId job, int attempt, int rank, string how);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Job}: killing process {Pid} of rank {Rank} of attempt {Attempt}")]
    private partial void LogKill(JobId job, int attempt, int rank, int pid);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Job}: rank {Rank} of attempt {Attempt} hangs, its stacks are in {Path}")]
    private partial void LogStacks(JobId job, int attempt, int rank, string path);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Job}: the stacks of rank {Rank} of attempt {Attempt} could not be written: {Problem}")]
    private partial void LogNoStacks(JobId job, int attempt, int rank, string problem);

    [LoggerMessage(Level = LogLevel.Warning, Message = "the coordinator ordered {Rank}, which is no rank; ignored")]
    private partial void LogInvalid(RankName rank);
}
