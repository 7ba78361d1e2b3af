using System.Collections.Immutable;
using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;

namespace Trainer.Coordinator;

public sealed class PoolIndexGrain([PersistentState("pools")] IPersistentState<PoolIndexState> state) : Grain, IPoolIndexGrain
{
    public async Task Register(string pool)
    {
        List<string> pools = state.State.Pools;
        int at = pools.BinarySearch(pool, StringComparer.Ordinal);
        if (at < 0)
        {
            pools.Insert(~at, pool);
            await state.WriteStateAsync();
        }
    }

    public Task<ImmutableArray<string>> List() => Task.FromResult<ImmutableArray<string>>([.. state.State.Pools]);
}

[GenerateSerializer, Alias("trainer.pool-index-state")]
public sealed class PoolIndexState
{
    /// <summary>By name.</summary>
    [Id(0)] public List<string> Pools { get; set; } = [];
}
