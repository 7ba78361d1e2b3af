using System.Globalization;
using Trainer.Contracts;

namespace Trainer.EndToEnd.Tests;

/// <summary>Processes that wait with libtorch loaded for the rank that they become.</summary>
public sealed class StandbyTests
{
    [Fact]
    public async Task A_job_runs_in_the_process_that_waits_and_to_the_same_bits()
    {
        using var place = new Workplace();
        JobView first = await place.FinishAsync((await place.SubmitAsync()).Id);
        int waiting = await WaitingAsync(place);

        JobView second = await place.SubmitAsync("--name", "second");
        var files = new JobFiles(second.Directory);
        await Workplace.StepAsync(files, 1);
        Assert.Contains(waiting, Workplace.Ranks(files));
        Assert.Equal(("1", "0"), (LinuxProcesses.Variable(waiting, "TRAINER_ATTEMPT"), LinuxProcesses.Variable(waiting, "TRAINER_RANK")));
        // Short of memory, the system takes it before the agent; its death leaves no core file.
        Assert.Equal("500", File.ReadAllText($"/proc/{waiting}/oom_score_adj").Trim());
        Assert.Matches("Max core file size +0 +0", File.ReadAllText($"/proc/{waiting}/limits"));
        Assert.Equal("", File.ReadAllText(files.Attempt(1).Stderr));
        second = await place.FinishAsync(second.Id);
        Assert.Equal((JobStatus.Succeeded, 1), (second.Status, second.Attempt));
        (await TrainingTrace.ReadAsync(new JobFiles(first.Directory))).AssertEqual(await TrainingTrace.ReadAsync(files));

        // The next one, and it goes with its agent.
        int next = await WaitingAsync(place);
        Assert.NotEqual(waiting, next);
        LinuxProcesses.Signal(place.CoordinatorPid(), LinuxProcesses.Kill);
        await Workplace.UntilAsync(() => !IsThere(next), "the waiting process to end with its agent");
    }

    [Fact]
    public async Task A_job_is_not_harmed_by_the_death_of_the_process_that_waits()
    {
        using var place = new Workplace();
        await place.FinishAsync((await place.SubmitAsync()).Id);
        LinuxProcesses.Signal(await WaitingAsync(place), LinuxProcesses.Kill);
        JobView job = await place.FinishAsync((await place.SubmitAsync("--name", "second")).Id);
        Assert.Equal((JobStatus.Succeeded, 1), (job.Status, job.Attempt));
    }

    private static async Task<int> WaitingAsync(Workplace place)
    {
        int[] found = [];
        await Workplace.UntilAsync(() => (found = [.. place.Processes().Where(IsWaiting)]).Length == 1, "a process that waits");
        // Until it has loaded what it is there for.
        await Workplace.UntilAsync(() => LinuxProcesses.Maps(found[0]).Contains("libtorch_cpu", StringComparison.Ordinal), "libtorch");
        return found[0];
    }

    private static bool IsWaiting(int pid) =>
        LinuxProcesses.CommandLine(pid).TrimEnd().EndsWith(" standby", StringComparison.Ordinal)
        && !LinuxProcesses.CommandLine(pid).StartsWith("/bin/sh", StringComparison.Ordinal)
        && !int.TryParse(LinuxProcesses.Variable(pid, "TRAINER_RANK"), NumberStyles.None, CultureInfo.InvariantCulture, out _);

    private static bool IsThere(int pid) => LinuxProcesses.CommandLine(pid).Length > 0;
}
