using Orleans;

namespace Trainer.Contracts;

/// <summary>Who is signed in to the dashboard; and, under another key, who is about to be. One of each, so that both hold at every coordinator of a cluster.</summary>
[Alias("trainer.sessions.v1")]
public interface ISessionsGrain : IGrainWithStringKey
{
    const string Key = "sessions";

    [Alias("put")]
    Task Put(SessionEntry entry);

    /// <summary>Null when there is none, or no longer.</summary>
    [Alias("find")]
    Task<SessionEntry?> Find(string sha256);

    /// <summary>As <see cref="Find"/>, and it is gone: of any number of callers one gets it.</summary>
    [Alias("take")]
    Task<SessionEntry?> Take(string sha256);
}
