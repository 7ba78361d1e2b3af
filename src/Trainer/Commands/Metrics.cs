using System.CommandLine;
using System.Text.Json;
using Spectre.Console;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

internal static class Metrics
{
    public static Command Create()
    {
        Argument<string> id = Shared.Job();
        Option<string> format = Shared.Format();
        var tail = new Option<int>("--tail") { Description = "The newest N lines only. 0: all.", HelpName = "N", DefaultValueFactory = _ => 20 };
        var command = new Command("metrics", "Prints the metrics of a job: a table, or JSON lines with -o json.") { id, tail, format };
        command.SetAction(async (options, cancellationToken) =>
        {
            CoordinatorLocator locator = CoordinatorLocator.FromEnvironment();
            using CoordinatorClient client = await locator.ConnectAsync(cancellationToken);
            JobView job = await client.GetAsync(options.GetRequiredValue(id), cancellationToken);
            var written = new LogTail(new RankName(job.Id, job.Attempt, 0), LogStream.Metrics, locator.FilesOf(job));
            string[] lines = [.. await written.NewLinesAsync(client, atEnd: false, cancellationToken)];
            int count = options.GetValue(tail);
            lines = count > 0 ? lines[^Math.Min(count, lines.Length)..] : lines;
            if (options.GetValue(format) == "json")
            {
                Console.Write(string.Concat(lines.Select(line => line + "\n")));
            }
            else if (lines.Length == 0)
            {
                Console.WriteLine($"{job.Id} has no metrics yet");
            }
            else
            {
                Print([.. lines.Select(line => JsonDocument.Parse(line).RootElement)]);
            }
            return ExitCode.Succeeded;
        });
        return command;
    }

    private static void Print(JsonElement[] rows)
    {
        string[] columns = [.. rows.SelectMany(row => row.EnumerateObject().Select(cell => cell.Name)).Distinct()];
        var table = new Table { Border = TableBorder.None };
        table.AddColumns(columns);
        foreach (JsonElement row in rows)
        {
            table.AddRow(columns.Select(column => new Text(row.TryGetProperty(column, out JsonElement cell) ? cell.ToString() : "")));
        }
        if (Console.IsOutputRedirected)
        {
            AnsiConsole.Profile.Width = 1000;
        }
        AnsiConsole.Write(table);
    }
}
