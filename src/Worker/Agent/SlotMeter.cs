using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>Measures what living ranks take of their slots, for people who look. Nothing depends on it.</summary>
internal sealed class SlotMeter(RankSupervisor supervisor, TimeProvider time)
{
    private static readonly TimeSpan s_often = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan s_toolTakes = TimeSpan.FromSeconds(5);
    private static readonly long s_memory = GC.GetGCMemoryInfo().TotalAvailableMemoryBytes;

    private readonly Dictionary<int, (long Ticks, long At)> _before = [];
    private bool _hasTool = true;

    public async Task RunAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            SupervisedRank[] living = [.. supervisor.Living];
            Dictionary<string, SlotUse> devices = living.Any(rank => rank.Device is not null) ? await DevicesAsync(cancellationToken) : [];
            foreach (SupervisedRank rank in living)
            {
                rank.Measured(rank.Device is { } device ? devices.GetValueOrDefault(device) : rank.Process is { } process ? OfProcess(process) : null);
            }
            foreach (int gone in _before.Keys.Except(living.Select(rank => rank.Process?.Pid ?? 0)).ToArray())
            {
                _before.Remove(gone);
            }
            await Task.Delay(s_often, time, cancellationToken);
        }
    }

    /// <summary>Lines of <c>nvidia-smi --query-gpu=index,uuid,memory.used,memory.total,utilization.gpu</c>, by index and by UUID.</summary>
    internal static Dictionary<string, SlotUse> Parse(string listing)
    {
        var found = new Dictionary<string, SlotUse>(StringComparer.Ordinal);
        foreach (string[] cells in listing.Split('\n').Select(line => line.Split(',', StringSplitOptions.TrimEntries)))
        {
            if (cells is [var index, var uuid, var used, var total, var busy]
                && long.TryParse(used, CultureInfo.InvariantCulture, out long usedMiB) && long.TryParse(total, CultureInfo.InvariantCulture, out long totalMiB)
                && double.TryParse(busy, CultureInfo.InvariantCulture, out double percent))
            {
                found[index] = found[uuid] = new SlotUse { MemoryBytes = usedMiB << 20, MemoryLimitBytes = totalMiB << 20, Busy = percent / 100 };
            }
        }
        return found;
    }

    private SlotUse? OfProcess(ProcessIdentity process)
    {
        if (ProcessTable.Use(process) is not { } use)
        {
            return null;
        }
        long now = time.GetTimestamp();
        (long ticks, long at) = _before.GetValueOrDefault(process.Pid, (use.CpuTicks, now));
        double elapsed = time.GetElapsedTime(at, now).TotalSeconds;
        _before[process.Pid] = (use.CpuTicks, now);
        return new SlotUse
        {
            MemoryBytes = use.ResidentBytes,
            MemoryLimitBytes = s_memory,
            Busy = elapsed > 0 ? Math.Max(0, (use.CpuTicks - ticks) / ProcessTable.TicksPerSecond / elapsed) : 0,
        };
    }

    private async Task<Dictionary<string, SlotUse>> DevicesAsync(CancellationToken cancellationToken)
    {
        if (!_hasTool)
        {
            return [];
        }
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(s_toolTakes);
        try
        {
            using Process tool = Process.Start(new ProcessStartInfo("nvidia-smi",
                ["--query-gpu=index,uuid,memory.used,memory.total,utilization.gpu", "--format=csv,noheader,nounits"])
            {
                RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false,
            })!;
            try
            {
                return Parse(await tool.StandardOutput.ReadToEndAsync(limit.Token));
            }
            catch (OperationCanceledException)
            {
                // A driver that does not answer holds up nobody.
                tool.Kill();
                cancellationToken.ThrowIfCancellationRequested();
                return [];
            }
        }
        catch (Win32Exception)
        {
            _hasTool = false;
            return [];
        }
    }
}
