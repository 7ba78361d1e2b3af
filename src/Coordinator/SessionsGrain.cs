using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>Sessions, or in a grain of another key the codes that open one: nobody's many codes are at the cost of sessions.</summary>
public sealed class SessionsGrain([PersistentState("sessions")] IPersistentState<SessionsState> state, TimeProvider time) : Grain, ISessionsGrain
{
    /// <summary>Of one token, or of the owner; of more its oldest are over, and never another's.</summary>
    private const int MostOfOne = 64;

    private List<SessionEntry> Entries => state.State.Entries;

    public async Task Put(SessionEntry entry)
    {
        Entries.RemoveAll(known => known.ExpiresAt <= time.GetUtcNow());
        Entries.Add(entry);
        for (int over = Entries.Count(known => known.Token == entry.Token) - MostOfOne; over > 0; over--)
        {
            Entries.RemoveAt(Entries.FindIndex(known => known.Token == entry.Token));
        }
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
