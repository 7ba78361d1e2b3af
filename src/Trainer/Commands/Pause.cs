using System.CommandLine;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

internal static class Pause
{
    public static Command Create()
    {
        Argument<string> id = Shared.Job();
        Option<string> format = Shared.Format();
        var command = new Command("pause", "Stops a job after a last checkpoint and keeps it; \"trainer resume\" goes on.") { id, format };
        command.SetAction(async (options, cancellationToken) =>
        {
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            await Shared.NotEndedAsync(client, options.GetRequiredValue(id), "pause", cancellationToken);
            Shared.Print(await client.PauseAsync(options.GetRequiredValue(id), cancellationToken), options.GetValue(format));
            return ExitCode.Succeeded;
        });
        return command;
    }
}
