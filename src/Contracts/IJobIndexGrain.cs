using System.Collections.Immutable;
using Orleans;

namespace Trainer.Contracts;

/// <summary>
/// Finds jobs; its key is a shard, see <see cref="JobIndexShards"/>. Never the truth about a job: an entry comes before its job
/// starts and is retired after it has ended.
/// </summary>
[Alias("trainer.job-index.v2")]
public interface IJobIndexGrain : IGrainWithStringKey
{
    /// <summary>Adds the job, or marks it active again.</summary>
    [Alias("register")]
    Task Register(JobIndexEntry job);

    /// <summary>The job has ended and needs no looking after.</summary>
    [Alias("retire")]
    Task Retire(JobId job);

    [Alias("list")]
    Task<ImmutableArray<JobIndexEntry>> List();
}

[GenerateSerializer, Immutable, Alias("trainer.job-index-entry")]
public sealed record JobIndexEntry
{
    [Id(0)] public required JobId Id { get; init; }
    [Id(1)] public required string Name { get; init; }
    [Id(2)] public required bool Active { get; init; }
    [Id(3)] public string Project { get; init; } = "default";
    [Id(4)] public DateTimeOffset SubmittedAt { get; init; }

    public static JobIndexEntry Of(JobSpec spec, DateTimeOffset submittedAt) =>
        new() { Id = spec.Id, Name = spec.Name, Active = true, Project = spec.Project, SubmittedAt = submittedAt };
}

/// <summary>The index is cut into shards, so that a submission rewrites a small one: of 15,000 jobs some sixty.</summary>
public static class JobIndexShards
{
    private const int Count = 256;

    public static IEnumerable<string> All { get; } = [.. Enumerable.Range(0, Count).Select(Name)];

    public static string Of(JobId job)
    {
        // Orleans persists by this name: string.GetHashCode differs from process to process.
        uint hash = 2166136261;
        foreach (char letter in job.Value)
        {
            hash = (hash ^ letter) * 16777619;
        }
        return Name((int)(hash % Count));
    }

    private static string Name(int shard) => $"shard-{shard}";
}
