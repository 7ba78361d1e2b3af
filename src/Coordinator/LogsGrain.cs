using System.Collections.Immutable;
using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>Remembers what <see cref="LogArchive"/> has stored.</summary>
public sealed class LogsGrain([PersistentState("logs")] IPersistentState<LogsState> state) : Grain, ILogsGrain
{
    public Task<ImmutableArray<StoredStream>> Get(int attempt) =>
        Task.FromResult<ImmutableArray<StoredStream>>([.. state.State.Streams.Where(stored => stored.Rank.Attempt == attempt)]);

    public async Task<long> Extend(RankName rank, LogStream stream, long from, long to)
    {
        ImmutableArray<StoredStream> before = state.State.Streams;
        StoredStream? known = before.FirstOrDefault(stored => stored.Rank == rank && stored.Stream == stream);
        if (from != 0 && from != (known?.Length ?? 0))
        {
            return known?.Length ?? 0;
        }
        var next = new StoredStream { Rank = rank, Stream = stream, Length = to };
        state.State.Streams = known is null ? before.Add(next) : before.Replace(known, next);
        try
        {
            await state.WriteStateAsync();
        }
        catch
        {
            state.State.Streams = before;
            throw;
        }
        return to;
    }
}

/// <summary>What is stored of a job's streams.</summary>
[GenerateSerializer, Alias("trainer.logs-state")]
public sealed class LogsState
{
    [Id(0)] public ImmutableArray<StoredStream> Streams { get; set; } = [];
}
