using System.Collections.Immutable;
using Microsoft.Extensions.Logging;
using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;
using Trainer.Coordinator.Telemetry;

namespace Trainer.Coordinator;

/// <summary>One job: takes events in, lets <see cref="JobLifecycle"/> decide, stores, then carries out the effects.</summary>
public sealed partial class JobGrain(
    [PersistentState("job")] IPersistentState<JobState> state,
    TrainerHome home,
    CoordinatorOptions options,
    JobWatches watches,
    JobTelemetry telemetry,
    TimeProvider time,
    ILogger<JobGrain> log) : Grain, IJobGrain, IRemindable
{
    private const string WakeUp = "wake-up";

    /// <summary>Jobs in front that add one period between two looks at a job's place, up to twelve: the looks of many thousands cost more than heartbeats.</summary>
    private const int FarBack = 500, MostPeriods = 12;

    private static readonly TimeSpan s_slowStore = TimeSpan.FromSeconds(3);

    private IGrainTimer? _timer;
    private TimeSpan _period;
    private (int Attempt, long Since) _asked;
    private long? _ended;
    private string? _rendezvous;
    private (int Attempt, int Revision) _catalogued;
    private bool _isNew;

    private JobId Id => new(this.GetPrimaryKeyString());
    private JobFiles Files => home.Job(Id);
    private JobRecord? Job => state.State.Job;

    public override Task OnActivateAsync(CancellationToken cancellationToken)
    {
        // A job with an attempt never leaves memory while its coordinator lives.
        _isNew = Job?.Status.HasAttempt() == true;
        LookAfter();
        if (Job is { } job)
        {
            telemetry.Seen(job);
        }
        return Task.CompletedTask;
    }

    public override Task OnDeactivateAsync(DeactivationReason reason, CancellationToken cancellationToken)
    {
        telemetry.Left(Id);
        return Task.CompletedTask;
    }

    public async Task<JobRecord?> Submit(JobSpec spec)
    {
        if (Job is not null)
        {
            return Job.Spec.Submission == spec.Submission ? Job : null;
        }
        spec = InStore(spec);
        await Index.Register(JobIndexEntry.Of(spec, time.GetUtcNow()));
        Directory.CreateDirectory(Files.Directory);
        await File.WriteAllTextAsync(Files.Config, spec.Config);
        await StoreAsync(JobClock.Begin(JobLifecycle.Create(spec, time.GetUtcNow())));
        telemetry.Created(Job!);
        watches.Tell(Id);
        await this.RegisterOrUpdateReminder(WakeUp, TimeSpan.FromMinutes(1), TimeSpan.FromMinutes(1));
        LookAfter();
        return Job!;
    }

    public Task<JobRecord?> Get() => Task.FromResult(Job);

    public Task<JobRecord?> Cancel() => AskAsync(now => new CancelAsked(now));

    public Task<JobRecord?> Pause() => AskAsync(now => new PauseAsked(now));

    public Task<JobRecord?> SetPriority(int priority) => AskAsync(now => new PriorityAsked(now, priority));

    public async Task<JobRecord?> Resume()
    {
        if (Job is not null)
        {
            await Index.Register(JobIndexEntry.Of(Job.Spec, Job.SubmittedAt));
            await this.RegisterOrUpdateReminder(WakeUp, TimeSpan.FromMinutes(1), TimeSpan.FromMinutes(1));
            await AskAsync(now => new ResumeAsked(now));
            if (Job.Status.IsTerminal())
            {
                await CarryOutAsync(new Retire());
            }
        }
        return Job;
    }

    public async Task Wake()
    {
        if (Job is null || Job.Status.IsTerminal())
        {
            await CarryOutAsync(new Retire());
        }
        LookAfter();
        await LookAsync();
    }

    public async Task Claim(RankName rank, string node)
    {
        bool mine = Job is { } job && job.Status.HasAttempt() && rank.Attempt == job.Attempt && job.Nodes.ElementAtOrDefault(rank.Rank) == node;
        if (mine)
        {
            await LookAsync();
        }
        else
        {
            int upTo = Job is null ? int.MaxValue : Job.Status.HasAttempt() ? Job.Attempt - 1 : Job.Attempt;
            LogFenced(Id, rank.Attempt, node, Job?.Attempt ?? 0);
            await Node(node).Release(Id, Math.Max(upTo, rank.Attempt));
        }
    }

    public Task ReceiveReminder(string reminderName, TickStatus status) => Wake();

    private IQueueGrain Queue => GrainFactory.GetGrain<IQueueGrain>(Job?.Spec.Pool ?? "default");

    private IJobIndexGrain Index => GrainFactory.GetGrain<IJobIndexGrain>(JobIndexShards.Of(Id));

    private INodeGrain Node(string node) => GrainFactory.GetGrain<INodeGrain>(node);

    /// <summary>Gives a job that names no checkpoint store its folder in the coordinator's.</summary>
    private JobSpec InStore(JobSpec spec)
    {
        return options.Store is { } store && JobConfigJson.Read(spec.Config) is { Checkpoint: { Store: null } checkpoint } config
            ? spec with { Config = JobConfigJson.Write(config with { Checkpoint = checkpoint with { Store = $"{store.TrimEnd('/')}/{spec.Id}" } }) }
            : spec;
    }

    private async Task<JobRecord?> AskAsync(Func<DateTimeOffset, JobEvent> asked)
    {
        await ApplyAsync(asked(time.GetUtcNow()));
        await LookAsync();
        return Job;
    }

    /// <summary>Looks at the job now and then, as often as its status demands.</summary>
    private void LookAfter()
    {
        TimeSpan period = Job switch
        {
            null or { Status: JobStatus.Paused } => TimeSpan.Zero,
            { Status: JobStatus.Queued, Position: var position } => options.QueuedPoll * Math.Clamp((position ?? 0) / FarBack, 1, MostPeriods),
            { } job => job.Status.IsTerminal() ? TimeSpan.Zero : options.Poll,
        };
        if (period == _period)
        {
            return;
        }
        bool first = _period == TimeSpan.Zero;
        _period = period;
        if (period == TimeSpan.Zero)
        {
            _timer?.Dispose();
            _timer = null;
        }
        else if (_timer is null)
        {
            _timer = this.RegisterGrainTimer(_ => LookAsync(), new GrainTimerCreationOptions { DueTime = first ? TimeSpan.Zero : period, Period = period, KeepAlive = true });
        }
        else
        {
            _timer.Change(period, period);
        }
    }

    /// <summary>Lets events happen until nothing more follows from what is known now.</summary>
    private async Task LookAsync()
    {
        for (int round = 0; round < 8 && Job is { } job && await FindAsync(job) is { } happened; round++)
        {
            await ApplyAsync(happened);
            if (Job == job)
            {
                break;
            }
        }
    }

    private async Task<JobEvent?> FindAsync(JobRecord job)
    {
        DateTimeOffset now = time.GetUtcNow();
        if (_isNew)
        {
            _isNew = false;
            return new CoordinatorReplaced(now, job.Attempt);
        }
        switch (job.Status)
        {
            case JobStatus.Queued:
                QueuePlace place = await Queue.Acquire(Request(job));
                return place.Granted ? new RoomGranted(now, place.Nodes) : place.Reason == job.Reason && place.Position == job.Position ? null : new RoomMissing(now, place.Reason!, place.Position);
            case JobStatus.Retrying when now >= job.RetryAt:
                return new RetryDue(now);
            case JobStatus.Starting or JobStatus.Running or JobStatus.Stopping:
                await Queue.Acquire(Request(job));
                return await LookAtRanksAsync(job, now);
            default:
                return null;
        }
    }

    private static QueueRequest Request(JobRecord job) => new()
    {
        Job = job.Id,
        Project = job.Spec.Project,
        Priority = job.Priority,
        SubmittedAt = job.SubmittedAt,
        Ranks = job.Spec.Ranks,
        Holds = job.Status.HasAttempt() ? job.Nodes : [],
        Avoid = job.Avoid,
    };

    private async Task<AttemptEvent?> LookAtRanksAsync(JobRecord job, DateTimeOffset now)
    {
        NodeSight[] sights = await EnsureAsync(job);
        if (_rendezvous is null && sights.SelectMany(sight => sight.Ranks).FirstOrDefault(rank => rank.Name.Rank == 0)?.Report?.Endpoint is { } endpoint)
        {
            _rendezvous = endpoint;
            sights = await EnsureAsync(job);
        }
        if (sights.SelectMany(sight => sight.Ranks).Any(AttemptWatch.HasEnded))
        {
            _ended ??= time.GetTimestamp();
        }
        await CatalogueAsync(job, sights);
        return AttemptWatch.Judge(job, sights, options, now,
            time.GetElapsedTime(_asked.Since), _ended is { } ended ? time.GetElapsedTime(ended) : TimeSpan.Zero);
    }

    /// <summary>Before anything follows from what rank 0 says, the catalogue has what it says of the store. It is repeated after a restart.</summary>
    private async Task CatalogueAsync(JobRecord job, NodeSight[] sights)
    {
        RankState? lead = sights.SelectMany(sight => sight.Ranks).FirstOrDefault(rank => rank.Name.Rank == 0);
        if ((lead?.Result?.Checkpoints ?? lead?.Report?.Checkpoints) is { } report && (job.Attempt, report.Revision) is var told && told != _catalogued)
        {
            long start = time.GetTimestamp();
            await GrainFactory.GetGrain<ICheckpointsGrain>(Id.Value).Commit(job.Attempt, report);
            _catalogued = told;
            RemarkIfSlow(start);
        }
    }

    /// <summary>Repeats to the nodes what they are to run, and hears what they say of it.</summary>
    private Task<NodeSight[]> EnsureAsync(JobRecord job)
    {
        if (_asked.Attempt != job.Attempt)
        {
            _asked = (job.Attempt, time.GetTimestamp());
            _ended = null;
            _rendezvous = null;
        }
        return Task.WhenAll(job.Nodes.Distinct().Select(node => Node(node).Ensure([.. Assignments(job, node)])));
    }

    private IEnumerable<RankAssignment> Assignments(JobRecord job, string node) => Enumerable.Range(0, job.Spec.Ranks)
        .Where(rank => job.Nodes[rank] == node)
        .Select(rank => new RankAssignment
        {
            Name = new RankName(Id, job.Attempt, rank),
            WorldSize = job.Spec.Ranks,
            Config = job.Spec.Config,
            Order = job.Status is JobStatus.Stopping ? RankOrder.Stop : RankOrder.Continue,
            Rendezvous = _rendezvous,
            TakeStacks = job.HungAt is not null,
        });

    private async Task ApplyAsync(JobEvent happened)
    {
        if (Job is not { } before)
        {
            return;
        }
        (JobRecord after, ImmutableArray<JobEffect> effects) = JobLifecycle.Apply(before, happened);
        after = JobClock.Advance(before, after, happened.At);
        if (IsDurable(before, after))
        {
            long start = time.GetTimestamp();
            await StoreAsync(after);
            RemarkIfSlow(start);
            if (before.Status != after.Status)
            {
                LogTransition(Id, before.Status, after.Status, after.Attempt, after.History[^1].Text);
            }
        }
        else
        {
            state.State.Job = after;
        }
        if (before != after)
        {
            telemetry.Happened(before, happened, after);
            watches.Tell(Id);
        }
        if (happened is RankLost { Nodes: { IsDefault: false } suspects })
        {
            foreach (string node in suspects)
            {
                await Node(node).Strike(after.Reason ?? "");
            }
        }
        foreach (JobEffect effect in effects)
        {
            await CarryOutAsync(effect);
        }
        LookAfter();
    }

    /// <summary>Progress between two checkpoints is told again by the next report and not worth a disk write.</summary>
    private static bool IsDurable(JobRecord before, JobRecord after) =>
        before.Status != after.Status || before.Attempt != after.Attempt || before.PrioritySet != after.PrioritySet
        || before.LastCheckpointStep != after.LastCheckpointStep || before.Times != after.Times || before.History != after.History;

    /// <summary>A note of a database that kept the job waiting; it is stored with whatever is stored next.</summary>
    private void RemarkIfSlow(long start)
    {
        TimeSpan took = time.GetElapsedTime(start);
        if (took > s_slowStore && Job is { } job)
        {
            state.State.Job = JobLifecycle.Apply(job, new StoreWasSlow(time.GetUtcNow(), took)).Job;
            telemetry.DatabaseStalled();
        }
    }

    private async Task StoreAsync(JobRecord next)
    {
        JobRecord? before = Job;
        state.State.Job = next;
        long start = time.GetTimestamp();
        try
        {
            await state.WriteStateAsync();
            telemetry.Stored(time.GetElapsedTime(start));
        }
        catch
        {
            state.State.Job = before;
            throw;
        }
    }

    private async Task CarryOutAsync(JobEffect effect)
    {
        switch (effect)
        {
            case StartRanks:
                await EnsureAsync(Job!);
                break;
            case KillRanks kill:
                await Task.WhenAll(Job!.Nodes.Distinct().Select(node => Node(node).Release(Id, kill.UpTo)));
                break;
            case Vacate:
                await Queue.Release(Id);
                break;
            case Retire:
                await Queue.Release(Id);
                await Index.Retire(Id);
                if (await this.GetReminder(WakeUp) is { } reminder)
                {
                    await this.UnregisterReminder(reminder);
                }
                break;
        }
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "{Job} {Before} -> {After}, attempt {Attempt}: {Text}")]
    private partial void LogTransition(JobId job, JobStatus before, JobStatus after, int attempt, string text);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Job}: a rank of attempt {Attempt} runs on {Node} and is ended, the attempt is {Current}")]
    private partial void LogFenced(JobId job, int attempt, string node, int current);
}

/// <summary>What is stored of a job.</summary>
[GenerateSerializer, Alias("trainer.job-state")]
public sealed class JobState
{
    [Id(0)] public JobRecord? Job { get; set; }
}
