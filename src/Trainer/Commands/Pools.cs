using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Spectre.Console;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer pools list|quota</c>: what pools have, and who may have how much of it.</summary>
internal static class Pools
{
    public static Command Create() => new("pools", "Shows pools of machines, or bounds what a project may have of one.") { List(), Quota() };

    private static Command List()
    {
        Option<string> format = Shared.Format();
        var command = new Command("list", "Every pool with its slots, jobs and quotas.") { format };
        command.SetAction(async (options, cancellationToken) =>
        {
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            PoolList list = await client.PoolsAsync(cancellationToken);
            if (options.GetValue(format) == "json")
            {
                Console.WriteLine(JsonSerializer.Serialize(list, ContractsJson.Default.PoolList));
                return ExitCode.Succeeded;
            }
            var table = new Table { Border = TableBorder.None };
            table.AddColumns("POOL", "NODES", "SLOTS", "FREE", "RUNNING", "WAITING", "PROJECTS (USED/QUOTA)");
            foreach (PoolView pool in list.Pools)
            {
                table.AddRow(new Text[]
                {
                    new(pool.Pool), Number(pool.Nodes), Number(pool.Slots), Number(pool.Free), Number(pool.Running), Number(pool.Waiting),
                    new(string.Join(' ', pool.Projects.Select(use => string.Create(CultureInfo.InvariantCulture, $"{use.Project} {use.Used}/{(use.Quota is { } most ? most : "-")}")))),
                });
            }
            AnsiConsole.Write(table);
            return ExitCode.Succeeded;
        });
        return command;
    }

    private static Command Quota()
    {
        var project = new Argument<string>("PROJECT") { Description = "As \"trainer token --project\" names it." };
        var slots = new Argument<string>("SLOTS") { Description = "Slots at once at most, or none for no bound." };
        var pool = new Option<string>("--pool") { Description = "Of this pool.", DefaultValueFactory = _ => "default" };
        var command = new Command("quota", "Bounds the slots that a project holds at once; what runs goes on.") { project, slots, pool };
        command.SetAction(async (options, cancellationToken) =>
        {
            string given = options.GetRequiredValue(slots);
            int? most = given == "none" ? null
                : int.TryParse(given, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number <= QuotaRequest.MostSlots ? number
                : throw new ConfigException($"SLOTS {given}: give a number from 0 to {QuotaRequest.MostSlots}, or none for no bound");
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            PoolView view = await client.SetQuotaAsync(options.GetValue(pool)!, options.GetRequiredValue(project), most, cancellationToken);
            Console.WriteLine($"{view.Pool}: {options.GetRequiredValue(project)} may hold {(most is { } bound ? $"{bound} slots" : "any number of slots")}");
            return ExitCode.Succeeded;
        });
        return command;
    }

    private static Text Number(int value) => new(value.ToString(CultureInfo.InvariantCulture));
}
