using System.Collections.Immutable;
using Orleans;

namespace Trainer.Contracts;

/// <summary>Finds pools; there is one of it, see <see cref="Key"/>. A pool comes to be with its first node or job.</summary>
[Alias("trainer.pool-index.v1")]
public interface IPoolIndexGrain : IGrainWithStringKey
{
    public const string Key = "pools";

    [Alias("register")]
    Task Register(string pool);

    /// <summary>By name.</summary>
    [Alias("list")]
    Task<ImmutableArray<string>> List();
}
