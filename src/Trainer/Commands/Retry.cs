using System.CommandLine;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

internal static class Retry
{
    public static Command Create()
    {
        Argument<string> id = Shared.Job();
        Option<string> format = Shared.Format();
        var command = new Command("retry", "Goes on with a job that failed, from its newest good checkpoint and with new retry budgets.") { id, format };
        command.SetAction(async (options, cancellationToken) =>
        {
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            JobView job = await client.GetAsync(options.GetRequiredValue(id), cancellationToken);
            if (job.Status is not JobStatus.Failed)
            {
                throw new ConfigException($"{job.Id} is {Spelling.Of(job.Status)}, so there is nothing to retry; \"trainer resume\" goes on with a paused or cancelled job");
            }
            Shared.Print(await client.ResumeAsync(job.Id.Value, cancellationToken), options.GetValue(format));
            return ExitCode.Succeeded;
        });
        return command;
    }
}
