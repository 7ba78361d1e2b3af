using System.CommandLine;
using System.CommandLine.Parsing;
using System.Net;
using Trainer.Contracts;
using Trainer.Worker;

namespace Trainer.Cli;

/// <summary>Runs a command line and turns every error that a user can cure into lines on stderr and an exit code.</summary>
internal static class CommandLine
{
    public static async Task<int> RunAsync(RootCommand root, string[] args)
    {
        ParseResult command = root.Parse(args.Length == 0 ? ["--help"] : args, new ParserConfiguration { ResponseFileTokenReplacer = null });
        if (command.Errors.Count > 0 && command.Action is not null and not System.CommandLine.Help.HelpAction)
        {
            foreach (ParseError error in command.Errors)
            {
                await Console.Error.WriteLineAsync(PlainText.Lines(error.Message));
            }
            await Console.Error.WriteLineAsync($"See \"trainer {string.Concat(Verbs(command.CommandResult).Select(verb => verb + " "))}--help\".");
            return ExitCode.Usage;
        }
        try
        {
            return await command.InvokeAsync(new InvocationConfiguration
            {
                EnableDefaultExceptionHandler = false,
                // A worker that is told to end first hands its ranks back, which may take minutes.
                ProcessTerminationTimeout = command.CommandResult.Command.Name == "worker" ? null : TimeSpan.FromSeconds(10),
            });
        }
        catch (ConfigException error)
        {
            foreach (string problem in error.Problems)
            {
                await Console.Error.WriteLineAsync(PlainText.Lines(problem));
            }
            return ExitCode.Usage;
        }
        catch (JobInputException error)
        {
            await Console.Error.WriteLineAsync(PlainText.Lines(error.Message));
            return ExitCode.Usage;
        }
        catch (CoordinatorException error)
        {
            await Console.Error.WriteLineAsync(PlainText.Lines(error.Message));
            return error.Status switch
            {
                HttpStatusCode.NotFound => ExitCode.NotFound,
                HttpStatusCode.BadRequest or HttpStatusCode.Conflict => ExitCode.Usage,
                _ => ExitCode.Unreachable,
            };
        }
        catch (OperationCanceledException)
        {
            return ExitCode.Detached;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            await Console.Error.WriteLineAsync(PlainText.Lines(error.Message));
            return ExitCode.Usage;
        }
    }

    /// <summary>"checkpoints", "list": the words that lead to a command.</summary>
    private static IEnumerable<string> Verbs(CommandResult command) =>
        command.Parent is CommandResult parent ? Verbs(parent).Append(command.Command.Name) : [];
}
