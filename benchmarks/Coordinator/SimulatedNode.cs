using System.Diagnostics;
using Trainer.Contracts;

namespace Trainer.Benchmarks;

/// <summary>Speaks to the coordinator as a worker agent does, at its pace; its ranks live for a while, succeed, and are no processes.</summary>
/// <param name="open">Until it has completed, the node takes no ranks.</param>
/// <param name="joining">Of reports before that.</param>
internal sealed class SimulatedNode(
    string name, int slots, TimeSpan rankLives, CoordinatorClient reports, CoordinatorClient waits, GangLedger ledger, Task open, Latencies joining, Latencies latencies) : IDisposable
{
    private static readonly TimeSpan s_period = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_newsWait = TimeSpan.FromMilliseconds(50);

    private readonly Dictionary<RankName, long> _started = [];
    private readonly SemaphoreSlim _news = new(0, 1);

    public async Task RunAsync(TimeSpan after, CancellationToken cancellationToken)
    {
        await Task.Delay(after, cancellationToken);
        Task listening = ListenAsync(cancellationToken);
        while (true)
        {
            long start = Stopwatch.GetTimestamp();
            NodeOrders orders = await reports.ReportAsync(Report(), cancellationToken);
            (open.IsCompleted ? latencies : joining).Add(Stopwatch.GetElapsedTime(start));
            Obey(orders);
            await Task.Delay(s_newsWait, cancellationToken);
            await _news.WaitAsync(Next() - s_newsWait is { Ticks: > 0 } wait ? wait : TimeSpan.Zero, cancellationToken);
            if (listening.IsFaulted)
            {
                await listening;
            }
        }
    }

    public void Dispose() => _news.Dispose();

    private async Task ListenAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            await waits.WaitForOrdersAsync(name, cancellationToken);
            Beat();
        }
    }

    private NodeReport Report() => new()
    {
        Node = name,
        Slots = slots,
        Draining = !open.IsCompleted,
        Sequence = Environment.TickCount64,
        Version = "benchmark",
        Ranks = [.. _started.Select(rank =>
        {
            bool ended = Stopwatch.GetElapsedTime(rank.Value) >= rankLives;
            return new RankState
            {
                Name = rank.Key,
                Process = new ProcessIdentity { Pid = 1, StartTime = 1 },
                Alive = !ended,
                Report = new RankReport { Attempt = rank.Key.Attempt, Rank = rank.Key.Rank, Pid = 1, Phase = RankPhase.Training, Steps = 1 },
                Result = ended ? new RankResult { Outcome = RankOutcome.Succeeded, Step = 1 } : null,
            };
        })],
    };

    private void Obey(NodeOrders orders)
    {
        var wanted = orders.Ranks.Select(rank => rank.Name).ToHashSet();
        foreach (RankName gone in _started.Keys.Where(rank => !wanted.Contains(rank)).ToArray())
        {
            _started.Remove(gone);
        }
        foreach (RankAssignment rank in orders.Ranks.Where(rank => rank.WorldSize > 0 && !_started.ContainsKey(rank.Name)))
        {
            _started.Add(rank.Name, Stopwatch.GetTimestamp());
            ledger.Ordered(rank, name, _started.Values.Count(since => Stopwatch.GetElapsedTime(since) < rankLives));
            Beat();
        }
    }

    /// <summary>Until there is something to say: a rank ends, or the period is over.</summary>
    private TimeSpan Next()
    {
        TimeSpan next = s_period;
        foreach (long since in _started.Values)
        {
            TimeSpan left = rankLives - Stopwatch.GetElapsedTime(since);
            next = left > TimeSpan.Zero && left < next ? left : next;
        }
        return next;
    }

    private void Beat()
    {
        if (_news.CurrentCount == 0)
        {
            try
            {
                _news.Release();
            }
            catch (SemaphoreFullException)
            {
                // Somebody else was faster.
            }
        }
    }
}
