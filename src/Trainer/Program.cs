using System.CommandLine;
using Trainer.Cli;
using Trainer.Cli.Commands;
using Trainer.Contracts;
using Trainer.Worker;

// What is checked before a job is submitted, besides the configuration itself. Problems are shown; nothing is started.
Func<JobConfig, Preflight> preflight = job => InputFiles.Check(job) is { Count: > 0 } missing ? new Preflight(missing, []) : Preflight.Of(job);

if (Console.IsOutputRedirected)
{
    // A file or a pipe has no colours, and no edge at which tables would have to wrap.
    Spectre.Console.AnsiConsole.Profile.Capabilities.Ansi = false;
    Spectre.Console.AnsiConsole.Profile.Width = 200;
}

var root = new RootCommand("Fine-tunes Qwen models: \"trainer submit FILE --follow\" trains, and a killed job goes on where it was.")
{
    Submit.Create(preflight),
    Validate.Create(preflight),
    List.Create(),
    Status.Create(),
    Logs.Create(),
    Metrics.Create(),
    Events.Create(),
    Pause.Create(),
    Resume.Create(),
    Retry.Create(),
    Cancel.Create(),
    Priority.Create(),
    Checkpoints.Create(),
    Dashboard.Create(),
    Nodes.Create(),
    Pools.Create(),
    Export.Create(),
    Generate.Create(),
    Verify.Create(),
    Doctor.Create(),
    Bench.Create(),
    Serve.Create(),
    Trainer.Cli.Commands.Worker.Create(),
    Token.Create(),
    Schema.Create(),
    Completion.Create(),
    Stop.Create(),
    Rank.Create(),
    Standby.Create(),
};
return await CommandLine.RunAsync(root, args);
