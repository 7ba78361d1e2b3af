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
            JobView job = await client.GetAsync(options.GetRequiredValue(id), cancellationToken);
            if (job.Status.IsTerminal())
            {
                // What was wanted is so.
                await Console.Error.WriteLineAsync($"{job.Id} has already ended; nothing to cancel");
            }
            else
            {
                job = await client.CancelAsync(job.Id.Value, cancellationToken);
            }
            Shared.Print(job, options.GetValue(format));
            return ExitCode.Succeeded;
        });
        return command;
    }
}
