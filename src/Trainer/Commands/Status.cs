using System.CommandLine;
using System.Globalization;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

internal static class Status
{
    private const int HistoryLines = 10;

    public static Command Create()
    {
        Argument<string> id = Shared.Job();
        Option<string> format = Shared.Format();
        var command = new Command("status", "Shows what a job does, why, and what happened to it.") { id, format };
        command.SetAction(async (options, cancellationToken) =>
        {
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            JobView job = await client.GetAsync(options.GetRequiredValue(id), cancellationToken);
            if (options.GetValue(format) == "json")
            {
                Shared.PrintJson(job);
            }
            else
            {
                Print(job);
            }
            return ExitCode.Succeeded;
        });
        return command;
    }

    private static void Print(JobView job)
    {
        Shared.PrintLine(job);
        Row("progress", Progress.Line(job));
        Row("attempt", job.Attempt.ToString(CultureInfo.InvariantCulture));
        Row("checkpoint", job.LastCheckpointStep is { } step ? $"step {step}" : "none yet");
        Row("folder", job.Directory);
        foreach (HistoryEntry entry in job.History.TakeLast(HistoryLines))
        {
            Row(entry.At.ToLocalTime().ToString("HH:mm:ss", CultureInfo.InvariantCulture), entry.Text);
        }

        static void Row(string label, string text)
        {
            if (text.Length > 0)
            {
                Console.WriteLine($"  {label,-11}{PlainText.OneLine(text)}");
            }
        }
    }
}
