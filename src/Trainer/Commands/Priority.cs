using System.CommandLine;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

internal static class Priority
{
    public static Command Create()
    {
        Argument<string> id = Shared.Job();
        var value = new Argument<int>("N") { Description = "-1000 to 1000; larger runs earlier." };
        Option<string> format = Shared.Format();
        var command = new Command("priority", "Changes the priority of a job that has not ended.") { id, value, format };
        command.SetAction(async (options, cancellationToken) =>
        {
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            await Shared.NotEndedAsync(client, options.GetRequiredValue(id), "give another priority", cancellationToken);
            Shared.Print(await client.SetPriorityAsync(options.GetRequiredValue(id), options.GetValue(value), cancellationToken), options.GetValue(format));
            return ExitCode.Succeeded;
        });
        return command;
    }
}
