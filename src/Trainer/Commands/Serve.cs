using System.CommandLine;
using Trainer.Contracts;
using Trainer.Coordinator;

namespace Trainer.Cli.Commands;

internal static class Serve
{
    public static Command Create()
    {
        var command = new Command("serve", "Runs the coordinator in the foreground. Ranks outlive it and are found again.");
        command.SetAction(async (_, cancellationToken) =>
        {
            TrainerHome home = TrainerHome.FromEnvironment();
            try
            {
                await using CoordinatorHost host = await CoordinatorHost.StartAsync(home, CoordinatorOptions.FromEnvironment(), cancellationToken);
                Console.WriteLine($"the coordinator answers on {home.Socket}");
                await host.WaitForShutdownAsync(cancellationToken);
                return ExitCode.Succeeded;
            }
            catch (CoordinatorRunningException error)
            {
                await Console.Error.WriteLineAsync(error.Message);
                return ExitCode.Usage;
            }
        });
        return command;
    }
}
