using System.CommandLine;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

internal static class Cancel
{
    public static Command Create()
    {
        Argument<string> id = Shared.Job();
        Option<string> format = Shared.Format();
        var command = new Command("cancel", "Ends a job after a last checkpoint; \"trainer resume\" goes on from there.") { id, format };
        command.SetAction(async (options, cancellationToken) =>
        {
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            Shared.Print(await client.CancelAsync(options.GetRequiredValue(id), cancellationToken), options.GetValue(format));
            return ExitCode.Succeeded;
        });
        return command;
    }
}
