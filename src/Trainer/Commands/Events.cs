using System.CommandLine;
using System.Text.Json;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer events JOB</c>: what happened to a job, in words.</summary>
internal static class Events
{
    public static Command Create()
    {
        Argument<string> id = Shared.Job();
        Option<string> format = Shared.Format();
        var command = new Command("events", "Prints what happened to a job: a line an event.") { id, format };
        command.SetAction(async (options, cancellationToken) =>
        {
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            JobView job = await client.GetAsync(options.GetRequiredValue(id), cancellationToken);
            if (options.GetValue(format) == "json")
            {
                Console.WriteLine(JsonSerializer.Serialize(new EventList { Job = job.Id, Events = job.History }, ContractsJson.Default.EventList));
                return ExitCode.Succeeded;
            }
            foreach (HistoryEntry entry in job.History)
            {
                Console.WriteLine($"{entry.At.UtcDateTime:yyyy-MM-dd HH:mm:ss.fff}Z {entry.Text}");
            }
            return ExitCode.Succeeded;
        });
        return command;
    }
}
