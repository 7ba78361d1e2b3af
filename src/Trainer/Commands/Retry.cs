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
                throw new ConfigException($"{job.Id} {WhyNot(job)}");
            }
            Shared.Print(await client.ResumeAsync(job.Id.Value, cancellationToken), options.GetValue(format));
            return ExitCode.Succeeded;
        });
        return command;
    }

    private static string WhyNot(JobView job) => job.Status switch
    {
        JobStatus.Succeeded => "has succeeded, so there is nothing to retry; submit its file again to repeat the training, "
            + $"or one whose model.path is the folder of \"trainer export {job.Id} --out FOLDER\" to train on",
        JobStatus.Paused or JobStatus.Cancelled or JobStatus.Stopping => $"is {Spelling.Of(job.Status)} and has not failed; \"trainer resume {job.Id}\" goes on with it",
        JobStatus.Retrying => "retries by itself, so there is nothing to do; \"trainer status\" says when",
        _ => $"is {Spelling.Of(job.Status)} and has not failed, so there is nothing to retry; \"trainer cancel {job.Id}\" ends it",
    };
}
