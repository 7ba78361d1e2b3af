using System.CommandLine;
using System.Text.Json;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer events JOB</c>: what happened to a job, in words.</summary>
internal static class Events
{
    private static readonly TimeSpan s_wait = TimeSpan.FromSeconds(25);

    public static Command Create()
    {
        Argument<string> id = Shared.Job();
        Option<string> format = Shared.Format();
        var follow = new Option<bool>("--follow", "-f") { Description = "Waits for more until the job ends; exits with its outcome." };
        var command = new Command("events", "Prints what happened to a job: a line an event.") { id, follow, format };
        command.SetAction(async (options, cancellationToken) =>
        {
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            int last = 0;
            EventList list = await client.EventsAsync(options.GetRequiredValue(id), 0, TimeSpan.Zero, cancellationToken);
            if (options.GetValue(format) == "json" && !options.GetValue(follow))
            {
                Console.WriteLine(JsonSerializer.Serialize(list, ContractsJson.Default.EventList));
                return ExitCode.Succeeded;
            }
            while (true)
            {
                foreach (HistoryEntry entry in list.Events)
                {
                    Console.WriteLine(options.GetValue(format) == "json"
                        ? JsonSerializer.Serialize(entry, ContractsJson.OneLine.HistoryEntry)
                        : $"{entry.At.UtcDateTime:yyyy-MM-dd HH:mm:ss.fff}Z {PlainText.OneLine(entry.Text)}");
                }
                if (!options.GetValue(follow) || list.Status.IsTerminal())
                {
                    return options.GetValue(follow) ? ExitCode.Of(list.Status) : ExitCode.Succeeded;
                }
                last = list.Events is [.., var newest] ? newest.Sequence : last;
                list = await client.EventsAsync(list.Job.Value, last, s_wait, cancellationToken);
            }
        });
        return command;
    }
}
