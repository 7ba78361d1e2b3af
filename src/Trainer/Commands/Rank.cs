using System.CommandLine;
using Trainer.Worker.Training;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer rank</c>: started by the worker agent, not by people.</summary>
internal static class Rank
{
    public static Command Create()
    {
        var directory = new Option<string>("--job-dir") { Required = true };
        var attempt = new Option<int>("--attempt") { Required = true };
        var socket = new Option<string>("--socket") { Required = true };
        var rank = new Option<int>("--rank");
        var worldSize = new Option<int>("--world-size") { DefaultValueFactory = _ => 1 };
        var host = new Option<string>("--host") { DefaultValueFactory = _ => "127.0.0.1", Description = "Where the other ranks reach this one" };
        var threads = new Option<int>("--threads") { DefaultValueFactory = _ => Environment.ProcessorCount, Description = "Its share of the processors" };
        var command = new Command("rank", "Trains one attempt of a job (the worker agent starts this)") { directory, attempt, socket, rank, worldSize, host, threads };
        command.Hidden = true;
        command.SetAction(parsed => RankProcess.Run(new RankPlace(
            parsed.GetValue(directory)!, parsed.GetValue(attempt), parsed.GetValue(socket)!,
            parsed.GetValue(rank), parsed.GetValue(worldSize), parsed.GetValue(host)!, parsed.GetValue(threads))));
        return command;
    }
}
