using Orleans;
using Orleans.Concurrency;

namespace Trainer.Contracts;

/// <summary>One job. Its key is the job id. Calls are short: training is never a call.</summary>
[Alias("trainer.job.v1")]
public interface IJobGrain : IGrainWithStringKey
{
    /// <summary>Creates the job; asked again by the same submission, returns what there is. Null: the id is another submission's.</summary>
    [Alias("submit")]
    Task<JobRecord?> Submit(JobSpec spec);

    /// <summary>Null when there is no such job.</summary>
    [Alias("get")]
    Task<JobRecord?> Get();

    /// <summary>Ends the job after a last checkpoint; one that has ended stays as it is. While a job stops, the last wish holds.</summary>
    [Alias("cancel")]
    Task<JobRecord?> Cancel();

    /// <summary>Goes on with a paused, failed or cancelled job in a new attempt, with one that stops once it has stopped; any other stays as it is.</summary>
    [Alias("resume")]
    Task<JobRecord?> Resume();

    /// <summary>Stops after a checkpoint and waits for a resume; one that has ended stays as it is.</summary>
    [Alias("pause")]
    Task<JobRecord?> Pause();

    [Alias("set-priority")]
    Task<JobRecord?> SetPriority(int priority);

    /// <summary>Looks after the job at once: a coordinator has started, or something happened to one of its ranks.</summary>
    [Alias("wake"), OneWay]
    Task Wake();

    /// <summary>A node runs this rank and nobody there knows why: the job says that it wants it, or that it does not.</summary>
    [Alias("claim"), OneWay]
    Task Claim(RankName rank, string node);
}
