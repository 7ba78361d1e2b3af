using System.Collections.Immutable;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>All decisions about a job's catalogue of checkpoints as pure functions.</summary>
public static class CheckpointRules
{
    /// <summary>Entries that are remembered; of those that are gone, far fewer.</summary>
    private const int MostEntries = 1000;
    private const int MostRemoved = 100;
    private const int LongestReason = 500;

    /// <summary>
    /// Compares (attempt, revision) with the newest that was taken in, and sets it. What the report names is committed, what it
    /// would have to name but does not is removed.
    /// </summary>
    /// <returns>Null: refused, because a newer attempt has reported. The same catalogue: the report is not news.</returns>
    public static CheckpointCatalogue? Commit(CheckpointCatalogue known, int attempt, CheckpointReport report, DateTimeOffset now)
    {
        if (attempt < known.Attempt)
        {
            return null;
        }
        if ((attempt == known.Attempt && report.Revision <= known.Revision) || report.Held.IsDefault)
        {
            return known;
        }
        var held = new Dictionary<(int Step, int Attempt), HeldCheckpoint>();
        foreach (HeldCheckpoint checkpoint in report.Held)
        {
            held[(checkpoint.Step, checkpoint.Attempt)] = checkpoint;
        }
        IEnumerable<CheckpointEntry> before = known.Entries.Select(entry =>
            held.Remove((entry.Step, entry.Attempt), out HeldCheckpoint? found) ? Merge(entry, found, now) : Missing(entry, report, now)).ToArray();
        IEnumerable<CheckpointEntry> added = held.Values.Select(found =>
            Merge(new CheckpointEntry { Step = found.Step, Attempt = found.Attempt }, found, now));
        return known with { Attempt = attempt, Revision = report.Revision, Store = report.Store, Entries = Arrange(before.Concat(added)) };
    }

    /// <returns>Null: there is no such checkpoint. The same catalogue: it is gone, and what was found of it no longer counts.</returns>
    public static CheckpointCatalogue? Judge(CheckpointCatalogue known, int step, CheckpointVerdict verdict, DateTimeOffset now)
    {
        CheckpointEntry? entry = known.Entries.FirstOrDefault(entry => entry.Step == step && entry.Attempt == verdict.Attempt);
        if (entry is null or { Status: CheckpointStatus.Removed })
        {
            return entry is null ? null : known;
        }
        CheckpointEntry judged = verdict.Damage is { } damage ? Quarantine(entry, damage, now) : Good(entry, now);
        return known with { Entries = Arrange(known.Entries.Replace(entry, judged)) };
    }

    /// <summary>How many checkpoints are so now that were not before.</summary>
    public static int Since(CheckpointCatalogue before, CheckpointCatalogue after, Func<CheckpointEntry, bool> isSo)
    {
        var were = before.Entries.Where(isSo).Select(entry => (entry.Step, entry.Attempt)).ToHashSet();
        return after.Entries.Count(entry => isSo(entry) && !were.Contains((entry.Step, entry.Attempt)));
    }

    /// <summary>What was committed once does not change; whether it can be used does.</summary>
    private static CheckpointEntry Merge(CheckpointEntry entry, HeldCheckpoint found, DateTimeOffset now)
    {
        CheckpointEntry merged = entry with
        {
            CommittedAt = entry.CommittedAt ?? found.CommittedAt,
            Bytes = entry.Bytes ?? found.Bytes,
            Manifest = entry.Manifest ?? found.Manifest,
            EvalLoss = entry.EvalLoss ?? found.EvalLoss,
        };
        if (found.Removed)
        {
            return merged.Status is CheckpointStatus.Committed ? merged with { Status = CheckpointStatus.Removed, ChangedAt = now } : merged;
        }
        if (found.Quarantined is { } damage)
        {
            return Quarantine(merged, damage, now);
        }
        if (found.VerifiedAt is { } verified && !(verified <= merged.VerifiedAt) && !(verified <= Quarantined(merged)))
        {
            return Good(merged, verified);
        }
        return merged.Status is CheckpointStatus.Removed ? merged with { Status = CheckpointStatus.Committed, ChangedAt = null } : merged;
    }

    private static CheckpointEntry Missing(CheckpointEntry entry, CheckpointReport report, DateTimeOffset now) =>
        entry.Status is CheckpointStatus.Committed && (entry.Step >= report.From || entry.Step < report.Oldest)
            ? entry with { Status = CheckpointStatus.Removed, ChangedAt = now }
            : entry;

    private static CheckpointEntry Quarantine(CheckpointEntry entry, string damage, DateTimeOffset now) => entry.Status is CheckpointStatus.Quarantined
        ? entry
        : entry with { Status = CheckpointStatus.Quarantined, Reason = damage.Length > LongestReason ? damage[..LongestReason] : damage, ChangedAt = now };

    /// <summary>Also one that was quarantined before: somebody has mended it.</summary>
    private static CheckpointEntry Good(CheckpointEntry entry, DateTimeOffset verified) =>
        entry with { Status = CheckpointStatus.Committed, Reason = null, ChangedAt = null, VerifiedAt = verified };

    private static DateTimeOffset? Quarantined(CheckpointEntry entry) => entry.Status is CheckpointStatus.Quarantined ? entry.ChangedAt : null;

    private static ImmutableArray<CheckpointEntry> Arrange(IEnumerable<CheckpointEntry> entries)
    {
        CheckpointEntry[] ordered = [.. entries.OrderByDescending(entry => entry.Step).ThenByDescending(entry => entry.Attempt)];
        CheckpointEntry? best = ordered.Where(entry => entry is { Status: CheckpointStatus.Committed, EvalLoss: not null }).MinBy(entry => entry.EvalLoss);
        int removed = 0;
        return [.. ordered.Where(entry => entry.Status is not CheckpointStatus.Removed || removed++ < MostRemoved)
            .Where((entry, place) => place < MostEntries || entry == best)
            .Select(entry => entry.Best == (entry == best) ? entry : entry with { Best = entry == best })
            .Reverse()];
    }
}
