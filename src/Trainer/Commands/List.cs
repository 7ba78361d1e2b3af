using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Spectre.Console;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

internal static class List
{
    public static Command Create()
    {
        Option<string> format = Shared.Format();
        var command = new Command("list", "Shows all jobs, the newest last.") { format };
        command.SetAction(async (options, cancellationToken) =>
        {
            CoordinatorLocator local = CoordinatorLocator.FromEnvironment();
            var jobs = new JobList { Jobs = [] };
            // Without a database there are no jobs, and nothing is started to say so.
            if (local.IsRemote || File.Exists(local.Home.Database))
            {
                using CoordinatorClient client = await local.ConnectAsync(cancellationToken);
                jobs = await client.ListAsync(cancellationToken);
            }
            if (options.GetValue(format) == "json")
            {
                Console.WriteLine(JsonSerializer.Serialize(jobs, ContractsJson.Default.JobList));
            }
            else if (jobs.Jobs.IsEmpty)
            {
                Console.WriteLine("no jobs yet; \"trainer submit FILE\" makes one");
            }
            else
            {
                Print(jobs);
            }
            return ExitCode.Succeeded;
        });
        return command;
    }

    private static void Print(JobList jobs)
    {
        var table = new Table { Border = TableBorder.None };
        table.AddColumns("JOB", "STATUS", "STEP", "LOSS", "ETA", "ATTEMPT", "SUBMITTED", "REASON");
        foreach (JobView job in jobs.Jobs)
        {
            string[] cells = [
                job.Id.Value,
                Spelling.Of(job.Status),
                job.Steps > 0 ? $"{job.Step}/{job.Steps}" : job.Step > 0 ? $"{job.Step}" : "",
                job.Loss?.ToString("0.0000", CultureInfo.InvariantCulture) ?? "",
                job.EtaSeconds is { } eta ? Progress.Span(eta) : "",
                job.Attempt.ToString(CultureInfo.InvariantCulture),
                job.SubmittedAt.ToLocalTime().ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture),
                job.Reason ?? "",
            ];
            table.AddRow(cells.Select(cell => new Text(PlainText.OneLine(cell))));
        }
        if (Console.IsOutputRedirected)
        {
            // One job a line, for grep.
            AnsiConsole.Profile.Width = 1000;
        }
        AnsiConsole.Write(table);
    }
}
