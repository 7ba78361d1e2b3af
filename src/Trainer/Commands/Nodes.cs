using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Spectre.Console;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer nodes list|drain|undrain</c>: the machines of a coordinator.</summary>
internal static class Nodes
{
    public static Command Create() => new("nodes", "Shows machines, or takes one out of service.")
    {
        List(),
        Drain("drain", "Moves the ranks of a node elsewhere, after a checkpoint, and gives it no new ones.", true),
        Drain("undrain", "Takes a node back into service.", false),
    };

    private static Command List()
    {
        var pool = new Option<string?>("--pool") { Description = "Of this pool only." };
        Option<string> format = Shared.Format();
        var command = new Command("list", "Every machine that has reported to the coordinator.") { pool, format };
        command.SetAction(async (options, cancellationToken) =>
        {
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            NodeList list = await client.NodesAsync(options.GetValue(pool), cancellationToken);
            if (options.GetValue(format) == "json")
            {
                Console.WriteLine(JsonSerializer.Serialize(list, ContractsJson.Default.NodeList));
                return ExitCode.Succeeded;
            }
            var table = new Table { Border = TableBorder.None };
            table.AddColumns("NODE", "POOL", "STATE", "SLOTS", "KIND", "RANKS", "LAST HEARD", "STRIKES", "LAST STRIKE");
            foreach (NodeView node in list.Nodes)
            {
                table.AddRow(new Text[]
                {
                    new(node.Node), new(node.Pool), new(node.State), new(node.Slots.ToString(CultureInfo.InvariantCulture)), new(Spelling.Of(node.Kind)),
                    new(string.Join(' ', node.Ranks.Select(rank => $"{rank.Job}/{rank.Rank}"))),
                    new(string.Create(CultureInfo.InvariantCulture, $"{node.SilentSeconds:0} s ago")), new(node.Strikes.ToString(CultureInfo.InvariantCulture)), new(PlainText.OneLine(node.LastStrike ?? "")),
                });
            }
            AnsiConsole.Write(table);
            return ExitCode.Succeeded;
        });
        return command;
    }

    private static Command Drain(string verb, string description, bool drain)
    {
        var node = new Argument<string>("NODE") { Description = "Its name, as \"trainer nodes list\" shows it." };
        node.Validators.Add(result =>
        {
            if (result.Tokens is [{ Value: var given }] && !JobId.TryParse(given, out _))
            {
                result.AddError($"NODE {PlainText.Quote(given)} names no node; see \"trainer nodes list\"");
            }
        });
        var command = new Command(verb, description) { node };
        command.SetAction(async (options, cancellationToken) =>
        {
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            NodeView view = await client.DrainAsync(options.GetRequiredValue(node), drain, cancellationToken);
            Console.WriteLine($"{view.Node}: {view.State}");
            return ExitCode.Succeeded;
        });
        return command;
    }
}
