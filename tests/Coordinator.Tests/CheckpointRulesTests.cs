using System.Collections.Immutable;
using Trainer.Contracts;
using Trainer.Coordinator;

namespace Coordinator.Tests;

public sealed class CheckpointRulesTests
{
    private static readonly DateTimeOffset s_start = new(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);

    /// <summary>Attempts save, let go and quarantine; their reports are lost, repeated and late, also after the next attempt began.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Whatever_reports_are_lost_repeated_or_late_the_catalogue_follows_the_store(int seed)
    {
        var random = new Random(seed);
        for (int round = 0; round < 300; round++)
        {
            var store = new SortedDictionary<(int Step, int Attempt), HeldCheckpoint>();
            var sent = new List<(int Attempt, CheckpointReport Report)>();
            var catalogue = new CheckpointCatalogue();
            for (int attempt = 1; attempt <= 4; attempt++)
            {
                for (int revision = 1; revision <= 12; revision++)
                {
                    Change(random, store, attempt);
                    sent.Add((attempt, Report(revision, store.Values)));
                    for (int delivery = random.Next(3); delivery > 0; delivery--)
                    {
                        // Mostly the newest, now and then any before.
                        (int from, CheckpointReport report) = sent[random.Next(4) > 0 ? ^1 : random.Next(sent.Count)];
                        CheckpointCatalogue? next = CheckpointRules.Commit(catalogue, from, report, s_start.AddSeconds(sent.Count));

                        Assert.Equal(from < catalogue.Attempt, next is null);
                        if (from == catalogue.Attempt && report.Revision <= catalogue.Revision)
                        {
                            Assert.Same(catalogue, next);
                        }
                        RequireSound(catalogue, next ?? catalogue);
                        catalogue = next ?? catalogue;
                    }
                }
            }
            catalogue = CheckpointRules.Commit(catalogue, sent[^1].Attempt, sent[^1].Report, s_start.AddHours(1))!;

            Assert.Equal(store.Values.Where(held => held.Quarantined is null).Select(held => (held.Step, held.Attempt)),
                catalogue.Entries.Where(entry => entry.Status is CheckpointStatus.Committed).Select(entry => (entry.Step, entry.Attempt)));
            Assert.Equal(store.Values.Where(held => held.Quarantined is not null).Select(held => (held.Step, held.Attempt)),
                catalogue.Entries.Where(entry => entry.Status is CheckpointStatus.Quarantined).Select(entry => (entry.Step, entry.Attempt)));
        }
    }

    [Fact]
    public void A_replaced_attempt_is_refused_and_the_same_commit_again_changes_nothing()
    {
        CheckpointCatalogue known = Commit(new(), 2, Report(1, [Held(10, 1), Held(20, 2)]));

        Assert.Null(CheckpointRules.Commit(known, 1, Report(99, [Held(10, 1), Held(30, 1)]), s_start));
        Assert.Same(known, CheckpointRules.Commit(known, 2, Report(1, [Held(10, 1), Held(20, 2)]), s_start.AddHours(1)));
        CheckpointCatalogue again = Commit(known, 3, Report(1, [Held(10, 1), Held(20, 2) with { Manifest = "other", Bytes = 1 }]));
        Assert.Equal(known.Entries.AsEnumerable(), again.Entries);
        Assert.Equal((3, 1), (again.Attempt, again.Revision));
    }

    [Fact]
    public void What_is_left_out_of_a_full_report_is_removed_and_the_middle_of_a_cut_one_stays()
    {
        CheckpointCatalogue known = Commit(new(), 1, Report(1, [.. Enumerable.Range(1, 9).Select(step => Held(step, 1))]));

        CheckpointCatalogue cut = Commit(known, 1, Report(2, [Held(2, 1), Held(7, 1), Held(9, 1)]) with { From = 7, Oldest = 4 });
        Assert.Equal([1, 3, 8], Steps(cut, CheckpointStatus.Removed));
        Assert.Equal([2, 4, 5, 6, 7, 9], Steps(cut, CheckpointStatus.Committed));
        CheckpointCatalogue full = Commit(cut, 1, Report(3, [Held(9, 1)]));
        Assert.Equal([9], Steps(full, CheckpointStatus.Committed));
        Assert.All(full.Entries.Where(entry => entry.Status is CheckpointStatus.Removed), entry => Assert.NotNull(entry.ChangedAt));
    }

    [Fact]
    public void One_that_came_and_went_between_two_reports_is_remembered()
    {
        CheckpointCatalogue known = Commit(new(), 1, Report(1, [Held(10, 1)]));
        known = Commit(known, 1, Report(4, [Held(30, 1), Held(20, 1) with { Removed = true }, Held(10, 1) with { Removed = true }]));
        CheckpointCatalogue again = Commit(known, 1, Report(5, [Held(40, 1), Held(20, 1) with { Removed = true }]));

        Assert.Equal([10, 20], Steps(known, CheckpointStatus.Removed));
        Assert.Equal([30], Steps(known, CheckpointStatus.Committed));
        Assert.Equal([10, 20, 30], Steps(again, CheckpointStatus.Removed));
        Assert.Equal(known.Entries[1], again.Entries[1]);
    }

    [Fact]
    public void A_quarantined_one_stays_so_until_somebody_finds_it_good()
    {
        CheckpointCatalogue known = Commit(new(), 1, Report(1, [Held(10, 1), Held(20, 1)]));
        known = CheckpointRules.Judge(known, 20, new CheckpointVerdict { Attempt = 1, Damage = new string('x', 9000) }, s_start.AddMinutes(1))!;
        Assert.Equal([20], Steps(known, CheckpointStatus.Quarantined));
        Assert.Equal(500, known.Entries[1].Reason!.Length);

        // The rank that runs does not know of it; and a store that lost it tells nothing.
        known = Commit(known, 1, Report(2, [Held(10, 1), Held(20, 1) with { VerifiedAt = s_start }, Held(30, 1)]));
        known = Commit(known, 1, Report(3, [Held(30, 1)]));
        Assert.Equal([20], Steps(known, CheckpointStatus.Quarantined));

        CheckpointCatalogue mended = Commit(known, 2, Report(1, [Held(20, 1) with { VerifiedAt = s_start.AddMinutes(2) }]));
        Assert.Equal([20], Steps(mended, CheckpointStatus.Committed));
        mended = CheckpointRules.Judge(known, 20, new CheckpointVerdict { Attempt = 1 }, s_start.AddMinutes(3))!;
        Assert.Equal((CheckpointStatus.Committed, null, s_start.AddMinutes(3)), (mended.Entries[1].Status, mended.Entries[1].Reason, mended.Entries[1].VerifiedAt));
    }

    [Fact]
    public void A_verdict_on_what_is_unknown_or_gone_changes_nothing()
    {
        CheckpointCatalogue known = Commit(Commit(new(), 1, Report(1, [Held(10, 1), Held(20, 1)])), 1, Report(2, [Held(20, 1)]));

        Assert.Null(CheckpointRules.Judge(known, 15, new CheckpointVerdict { Attempt = 1, Damage = "x" }, s_start));
        Assert.Null(CheckpointRules.Judge(known, 20, new CheckpointVerdict { Attempt = 2, Damage = "x" }, s_start));
        Assert.Same(known, CheckpointRules.Judge(known, 10, new CheckpointVerdict { Attempt = 1, Damage = "x" }, s_start));
    }

    [Fact]
    public void The_best_has_the_lowest_loss_of_those_that_can_be_used_and_of_equals_the_newest()
    {
        CheckpointCatalogue known = Commit(new(), 1, Report(1,
            [Held(1, 1) with { EvalLoss = 0.5 }, Held(2, 1) with { EvalLoss = 1 }, Held(3, 1) with { EvalLoss = 1 }, Held(4, 1), Held(5, 1) with { EvalLoss = 2 }]));

        Assert.Equal(1, Assert.Single(known.Entries, entry => entry.Best).Step);
        known = CheckpointRules.Judge(known, 1, new CheckpointVerdict { Attempt = 1, Damage = "x" }, s_start)!;
        Assert.Equal(3, Assert.Single(known.Entries, entry => entry.Best).Step);
    }

    [Fact]
    public void A_catalogue_remembers_a_bounded_number()
    {
        var known = new CheckpointCatalogue();
        for (int step = 1; step <= 1500; step++)
        {
            known = Commit(known, 1, Report(step, [Held(step, 1) with { EvalLoss = step }]) with { From = step, Oldest = step > 700 ? 550 : 0 });
        }

        Assert.Equal(1000, known.Entries.Length);
        Assert.Equal(Enumerable.Range(501, 49), Steps(known, CheckpointStatus.Removed));
        Assert.Equal(1500, known.Entries[^1].Step);
    }

    private static void Change(Random random, SortedDictionary<(int, int), HeldCheckpoint> store, int attempt)
    {
        int last = store.Count == 0 ? 0 : store.Keys.Max().Item1;
        (int, int)[] usable = [.. store.Where(held => held.Value.Quarantined is null).Select(held => held.Key)];
        switch (random.Next(4))
        {
            case 0 when usable.Length > 1:
                store.Remove(usable[random.Next(usable.Length - 1)]);
                break;
            case 1 when usable.Length > 0 && random.Next(3) == 0:
                (int, int) damaged = usable[random.Next(usable.Length)];
                store[damaged] = store[damaged] with { Quarantined = "damaged", VerifiedAt = null };
                break;
            default:
                // An attempt trains again what the one before it had saved and lost.
                int step = Math.Max(1, last + random.Next(-2, 4));
                store.TryAdd((step, attempt), Held(step, attempt) with { EvalLoss = step % 2 == 0 ? step * 7 % 5 : null });
                break;
        }
    }

    private static void RequireSound(CheckpointCatalogue before, CheckpointCatalogue after)
    {
        Assert.True(after.Attempt >= before.Attempt);
        Assert.Equal(after.Entries.Select(entry => (entry.Step, entry.Attempt)).Distinct().Order(), after.Entries.Select(entry => (entry.Step, entry.Attempt)));
        Assert.Equal(after.Entries.Any(entry => entry is { Status: CheckpointStatus.Committed, EvalLoss: not null }) ? 1 : 0, after.Entries.Count(entry => entry.Best));
        foreach (CheckpointEntry was in before.Entries)
        {
            CheckpointEntry now = Assert.Single(after.Entries, entry => (entry.Step, entry.Attempt) == (was.Step, was.Attempt));
            Assert.Equal((was.CommittedAt, was.Bytes, was.Manifest, was.EvalLoss), (now.CommittedAt, now.Bytes, now.Manifest, now.EvalLoss));
            Assert.False(was.Status is CheckpointStatus.Quarantined && now.Status is CheckpointStatus.Removed);
        }
    }

    private static CheckpointCatalogue Commit(CheckpointCatalogue known, int attempt, CheckpointReport report) =>
        CheckpointRules.Commit(known, attempt, report, s_start)!;

    private static int[] Steps(CheckpointCatalogue catalogue, CheckpointStatus status) =>
        [.. catalogue.Entries.Where(entry => entry.Status == status).Select(entry => entry.Step)];

    private static CheckpointReport Report(int revision, IEnumerable<HeldCheckpoint> held) => new() { Revision = revision, Store = "/store", Held = [.. held.Reverse()] };

    private static HeldCheckpoint Held(int step, int attempt) =>
        new() { Step = step, Attempt = attempt, CommittedAt = s_start.AddSeconds(step), Bytes = step * 100, Manifest = $"hash-{step}-{attempt}" };
}
