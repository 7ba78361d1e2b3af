using System.Collections.Immutable;
using System.Text.Json;
using Microsoft.Extensions.Logging;
using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>One job: takes events in, lets <see cref="JobLifecycle"/> decide, stores, then carries out the effects.</summary>
public sealed partial class JobGrain(
    [PersistentState("job")] IPersistentState<JobState> state,
    RankProcesses ranks,
    TrainerHome home,
    CoordinatorOptions options,
    TimeProvider time,
    ILogger<JobGrain> log) : Grain, IJobGrain, IRemindable
{
    private const string WakeUp = "wake-up";

    private IGrainTimer? _timer;
    private long _lastSign;
    private long? _resultSeen;

    private JobId Id => new(this.GetPrimaryKeyString());
    private JobFiles Files => home.Job(Id);
    private JobRecord? Job => state.State.Job;

    public override Task OnActivateAsync(CancellationToken cancellationToken)
    {
        // Whoever was heard by a coordinator before this one has the full time to be heard again.
        _lastSign = time.GetTimestamp();
        LookAfter();
        return Task.CompletedTask;
    }

    public async Task<JobRecord> Submit(JobSpec spec)
    {
        if (Job is not null)
        {
            return Job;
        }
        await Index.Register(spec.Id, spec.Name);
        Directory.CreateDirectory(Files.Directory);
        await File.WriteAllTextAsync(Files.Config, spec.Config);
        await StoreAsync(JobLifecycle.Create(spec, time.GetUtcNow()));
        await this.RegisterOrUpdateReminder(WakeUp, TimeSpan.FromMinutes(1), TimeSpan.FromMinutes(1));
        LookAfter();
        return Job!;
    }

    public Task<JobRecord?> Get() => Task.FromResult(Job);

    public async Task<JobRecord?> Cancel()
    {
        await ApplyAsync(new CancelAsked(time.GetUtcNow()));
        return Job;
    }

    public async Task<JobRecord?> Resume()
    {
        if (Job is not null)
        {
            await Index.Register(Id, Job.Spec.Name);
            await this.RegisterOrUpdateReminder(WakeUp, TimeSpan.FromMinutes(1), TimeSpan.FromMinutes(1));
            await ApplyAsync(new ResumeAsked(time.GetUtcNow()));
            if (Job.Status.IsTerminal())
            {
                await CarryOutAsync(new Retire());
            }
            LookAfter();
        }
        return Job;
    }

    public async Task<RankOrder> Heartbeat(RankReport report)
    {
        if (Job is null || report.Attempt != Job.Attempt || !Job.Status.HasAttempt())
        {
            LogFenced(Id, report.Attempt, Job?.Attempt ?? 0);
            return RankOrder.Fenced;
        }
        _lastSign = time.GetTimestamp();
        await ApplyAsync(new RankReported(time.GetUtcNow(), report));
        return Job.Status is JobStatus.Stopping ? RankOrder.Stop : RankOrder.Continue;
    }

    public async Task Wake()
    {
        if (Job is null || Job.Status.IsTerminal())
        {
            await CarryOutAsync(new Retire());
        }
        LookAfter();
    }

    public Task ReceiveReminder(string reminderName, TickStatus status) => Wake();

    private IQueueGrain Queue => GrainFactory.GetGrain<IQueueGrain>("local");

    private IJobIndexGrain Index => GrainFactory.GetGrain<IJobIndexGrain>("all");

    /// <summary>Starts or stops the looks at the job, as its status demands.</summary>
    private void LookAfter()
    {
        bool needed = Job is { Status: not JobStatus.Paused } job && !job.Status.IsTerminal();
        if (needed && _timer is null)
        {
            _timer = this.RegisterGrainTimer(_ => LookAsync(), new GrainTimerCreationOptions { DueTime = TimeSpan.Zero, Period = options.Poll, KeepAlive = true });
        }
        else if (!needed)
        {
            _timer?.Dispose();
            _timer = null;
        }
    }

    private async Task LookAsync()
    {
        DateTimeOffset now = time.GetUtcNow();
        JobRecord job = Job!;
        QueuePlace place = await Queue.Acquire(new QueueRequest { Job = Id, Priority = job.Spec.Priority, SubmittedAt = job.SubmittedAt });
        JobEvent? happened = job.Status switch
        {
            JobStatus.Queued when place.Granted => new MachineGranted(now),
            JobStatus.Queued => new MachineBusy(now, place.Reason!),
            JobStatus.Retrying when now >= job.RetryAt => new RetryDue(now),
            _ when job.Status.HasAttempt() => LookAtRank(job, now),
            _ => null,
        };
        if (happened is not null)
        {
            await ApplyAsync(happened);
        }
    }

    /// <summary>Being gone, a result, or silence ends an attempt; a failed call never does.</summary>
    private AttemptEvent? LookAtRank(JobRecord job, DateTimeOffset now)
    {
        ProcessIdentity? process = job.Process ?? ranks.Find(Id, job.Attempt);
        if (process is not null && DetachedProcess.IsAlive(process))
        {
            if (job.Process is null)
            {
                return new RankStarted(now, job.Attempt, process);
            }
            if (time.GetElapsedTime(_lastSign) > options.Silence)
            {
                return Lost($"process {process.Pid} gave no sign of life for {options.Silence.TotalSeconds:0} s");
            }
            if (now - job.StopAskedAt > options.StopGrace)
            {
                return Lost($"did not stop within {options.StopGrace.TotalSeconds:0} s");
            }
            if (!File.Exists(Files.Attempt(job.Attempt).Result))
            {
                return null;
            }
            _resultSeen ??= time.GetTimestamp();
            if (time.GetElapsedTime(_resultSeen.Value) < options.ExitGrace)
            {
                return null;
            }
        }
        try
        {
            return RankResult.Read(Files.Attempt(job.Attempt).Result) is { } result
                ? new RankEnded(now, job.Attempt, result)
                : Lost(process is null ? "its process is gone" : $"process {process.Pid} ended without a result{LastWords(job.Attempt)}");
        }
        catch (JsonException error)
        {
            return Lost($"its result.json cannot be read ({error.Message})");
        }

        RankLost Lost(string message) => new(now, job.Attempt, FailureClass.Infrastructure, message);
    }

    /// <summary>The last line of the rank's stderr, which mostly says why.</summary>
    private string LastWords(int attempt)
    {
        string path = Files.Attempt(attempt).Stderr;
        string? line = File.Exists(path) ? File.ReadLines(path).LastOrDefault(line => line.Trim().Length > 0) : null;
        return line is null ? " (killed?)" : $"; its last words: {(line.Length > 200 ? line[..200] : line).Trim()}";
    }

    private async Task ApplyAsync(JobEvent happened)
    {
        if (Job is not { } before)
        {
            return;
        }
        (JobRecord after, ImmutableArray<JobEffect> effects) = JobLifecycle.Apply(before, happened);
        if (IsDurable(before, after))
        {
            await StoreAsync(after);
            if (before.Status != after.Status)
            {
                LogTransition(Id, before.Status, after.Status, after.Attempt, after.History[^1].Text);
            }
        }
        else
        {
            state.State.Job = after;
        }
        foreach (JobEffect effect in effects)
        {
            await CarryOutAsync(effect);
        }
        LookAfter();
    }

    /// <summary>Progress between two checkpoints is told again by the next report and not worth a disk write.</summary>
    private static bool IsDurable(JobRecord before, JobRecord after) =>
        before.Status != after.Status || before.Attempt != after.Attempt || before.Process != after.Process
        || before.LastCheckpointStep != after.LastCheckpointStep || before.History != after.History;

    private async Task StoreAsync(JobRecord next)
    {
        JobRecord? before = Job;
        state.State.Job = next;
        try
        {
            await state.WriteStateAsync();
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
            case StartRank start:
                await StartAsync(start.Attempt);
                break;
            case KillRanks kill:
                await ranks.KillAsync(Id, kill.UpTo);
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

    private async Task StartAsync(int attempt)
    {
        _lastSign = time.GetTimestamp();
        _resultSeen = null;
        AttemptEvent happened;
        try
        {
            await ranks.KillAsync(Id, attempt - 1);
            happened = new RankStarted(time.GetUtcNow(), attempt, ranks.Start(Id, attempt));
        }
        catch (Exception error) when (error is System.ComponentModel.Win32Exception or IOException or UnauthorizedAccessException or TimeoutException)
        {
            happened = new RankLost(time.GetUtcNow(), attempt, FailureClass.Unknown, $"the rank process could not be started: {error.Message}");
        }
        await ApplyAsync(happened);
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "{Job} {Before} -> {After}, attempt {Attempt}: {Text}")]
    private partial void LogTransition(JobId job, JobStatus before, JobStatus after, int attempt, string text);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Job}: a rank of attempt {Attempt} reported and was fenced, the attempt is {Current}")]
    private partial void LogFenced(JobId job, int attempt, int current);
}

/// <summary>What is stored of a job.</summary>
[GenerateSerializer, Alias("trainer.job-state")]
public sealed class JobState
{
    [Id(0)] public JobRecord? Job { get; set; }
}
