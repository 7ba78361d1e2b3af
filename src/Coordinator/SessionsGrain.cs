using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;

namespace Trainer.Coordinator;

public sealed class SessionsGrain([PersistentState("sessions")] IPersistentState<SessionsState> state, TimeProvider time) : Grain, ISessionsGrain
{
    /// <summary>Of more the oldest are over.</summary>
    private const int Most = 1000;

    private List<SessionEntry> Entries => state.State.Entries;

    public async Task Put(SessionEntry entry)
    {
        Entries.RemoveAll(known => known.ExpiresAt <= time.GetUtcNow());
        Entries.Add(entry);
        Entries.RemoveRange(0, Math.Max(0, Entries.Count - Most));
        await state.WriteStateAsync();
    }

    public Task<SessionEntry?> Find(string sha256) =>
        Task.FromResult(Entries.Find(entry => entry.Sha256 == sha256 && entry.ExpiresAt > time.GetUtcNow()));

    public async Task<SessionEntry?> Take(string sha256)
    {
        SessionEntry? found = await Find(sha256);
        if (found is not null)
        {
            Entries.Remove(found);
            await state.WriteStateAsync();
        }
        return found;
    }
}

/// <summary>What is stored of sessions.</summary>
[GenerateSerializer, Alias("trainer.sessions-state")]
public sealed class SessionsState
{
    /// <summary>Oldest first.</summary>
    [Id(0)] public List<SessionEntry> Entries { get; set; } = [];
}
