using System.CommandLine;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

internal static class Resume
{
    public static Command Create()
    {
        Argument<string> id = Shared.Job();
        Option<string> format = Shared.Format();
        var command = new Command("resume", "Starts a paused job, or goes on with a failed or cancelled one from its newest checkpoint; one that is stopping once it has stopped.") { id, format };
        command.SetAction(async (options, cancellationToken) =>
        {
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            Shared.Print(await client.ResumeAsync(options.GetRequiredValue(id), cancellationToken), options.GetValue(format));
            return ExitCode.Succeeded;
        });
        return command;
    }
}
