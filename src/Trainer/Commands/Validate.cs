using System.CommandLine;
using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker;

namespace Trainer.Cli.Commands;

internal static class Validate
{
    public static Command Create(Func<JobConfig, Preflight> preflight)
    {
        Argument<string> file = Shared.File();
        Option<string[]> sets = Shared.Sets();
        Option<string> format = Shared.Format();
        var command = new Command("validate", "Checks a job file and what it names; shows every problem at once.") { file, sets, format };
        command.SetAction(options =>
        {
            string path = options.GetRequiredValue(file);
            IReadOnlyList<string> problems = [], warnings = [];
            try
            {
                (_, warnings) = Shared.Load(path, options.GetValue(sets)!, preflight);
            }
            catch (ConfigException error)
            {
                problems = error.Problems;
            }
            if (options.GetValue(format) == "json")
            {
                var report = new ValidationReport { Valid = problems.Count == 0, Problems = problems, Warnings = warnings };
                Console.WriteLine(JsonSerializer.Serialize(report, CliJson.Default.ValidationReport));
            }
            else if (problems.Count == 0)
            {
                Shared.Warn(warnings);
                Console.WriteLine($"{path}: good");
            }
            else
            {
                throw new ConfigException(problems);
            }
            return problems.Count == 0 ? ExitCode.Succeeded : ExitCode.Usage;
        });
        return command;
    }
}
