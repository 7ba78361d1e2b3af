using System.CommandLine;
using Trainer.Worker.Training;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer rank</c>: started by the coordinator, not by people.</summary>
internal static class Rank
{
    public static Command Create()
    {
        var directory = new Option<string>("--job-dir") { Required = true };
        var attempt = new Option<int>("--attempt") { Required = true };
        var socket = new Option<string>("--socket") { Required = true };
        var command = new Command("rank", "Trains one attempt of a job (the coordinator starts this)") { directory, attempt, socket };
        command.Hidden = true;
        command.SetAction(parsed => RankProcess.Run(parsed.GetValue(directory)!, parsed.GetValue(attempt), parsed.GetValue(socket)!));
        return command;
    }
}
