using System.CommandLine;
using Trainer.Worker.Training;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer standby</c>: started by the worker agent, not by people.</summary>
internal static class Standby
{
    public static Command Create()
    {
        var command = new Command("standby", "Becomes a rank (the worker agent starts this)") { Hidden = true };
        command.SetAction(_ => StandbyProcess.Run());
        return command;
    }
}
