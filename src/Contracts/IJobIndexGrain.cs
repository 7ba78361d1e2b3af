using System.Collections.Immutable;
using Orleans;

namespace Trainer.Contracts;

/// <summary>Finds jobs. Never the truth about one: an entry comes before its job starts and is retired after it has ended.</summary>
[Alias("trainer.job-index.v1")]
public interface IJobIndexGrain : IGrainWithStringKey
{
    /// <summary>Adds the job, or marks it active again.</summary>
    [Alias("register")]
    Task Register(JobId job, string name);

    /// <summary>The job has ended and needs no looking after.</summary>
    [Alias("retire")]
    Task Retire(JobId job);

    /// <summary>In order of submission.</summary>
    [Alias("list")]
    Task<ImmutableArray<JobIndexEntry>> List();
}

[GenerateSerializer, Immutable, Alias("trainer.job-index-entry")]
public sealed record JobIndexEntry
{
    [Id(0)] public required JobId Id { get; init; }
    [Id(1)] public required string Name { get; init; }
    [Id(2)] public required bool Active { get; init; }
}
