using System.Collections.Immutable;
using Orleans;

namespace Trainer.Contracts;

/// <summary>
/// How much of what a job's ranks wrote (logs, metrics, samples, stacks) lies in the job's store, where it survives the machines of
/// ranks and coordinators. Its key is the job id. A byte's offset in its stream is its sequence number; the bytes pass by this grain.
/// </summary>
[Alias("trainer.logs.v1")]
public interface ILogsGrain : IGrainWithStringKey
{
    /// <summary>Every stream of an attempt of which something is stored.</summary>
    [Alias("get")]
    Task<ImmutableArray<StoredStream>> Get(int attempt);

    /// <summary>
    /// Compare and set, after the bytes are in the store: it had the stream up to <paramref name="from"/> and now has it up to
    /// <paramref name="to"/>. From 0: it has been stored anew.
    /// </summary>
    /// <returns>Up to where it is stored now; not <paramref name="to"/> when another coordinator stored it meanwhile.</returns>
    [Alias("extend")]
    Task<long> Extend(RankName rank, LogStream stream, long from, long to);
}
