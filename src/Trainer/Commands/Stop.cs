using System.CommandLine;
using System.Diagnostics;
using Trainer.Contracts;
using Trainer.Worker.Agent;

namespace Trainer.Cli.Commands;

internal static class Stop
{
    private static readonly TimeSpan s_often = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan s_stopTakes = TimeSpan.FromSeconds(40);

    public static Command Create()
    {
        var command = new Command("stop", "Stops the coordinator. Running jobs go on and are looked after again by the next one.");
        command.SetAction(async (_, cancellationToken) =>
        {
            CoordinatorLocator local = CoordinatorLocator.FromEnvironment();
            using CoordinatorClient? client = await local.FindAsync(cancellationToken);
            if (client is null)
            {
                Console.WriteLine("no coordinator runs");
                return ExitCode.Succeeded;
            }
            JobList jobs = await client.ListAsync(cancellationToken);
            CoordinatorInfo info = await client.StopAsync(cancellationToken);
            ProcessIdentity? process = local.IsRemote ? null : DetachedProcess.Find(info.Pid);
            long start = Stopwatch.GetTimestamp();
            while (process is not null && DetachedProcess.IsAlive(process))
            {
                if (Stopwatch.GetElapsedTime(start) > s_stopTakes)
                {
                    throw new CoordinatorException(null, $"the coordinator (process {info.Pid}) was asked to stop but is still there; its log is {local.Home.Log}");
                }
                await Task.Delay(s_often, cancellationToken);
            }
            int running = jobs.Jobs.Count(job => job.Status.HasAttempt());
            Console.WriteLine(running == 0 ? "the coordinator has stopped" : $"the coordinator has stopped; {running} running {(running == 1 ? "job goes" : "jobs go")} on");
            return ExitCode.Succeeded;
        });
        return command;
    }
}
