using System.CommandLine;
using System.CommandLine.Parsing;
using System.Net;
using System.Text.RegularExpressions;
using TorchSharp;
using Trainer.Contracts;
using Trainer.Worker;

namespace Trainer.Cli;

/// <summary>Runs a command line and turns every error that a user can cure into lines on stderr and an exit code.</summary>
internal static partial class CommandLine
{
    public static async Task<int> RunAsync(RootCommand root, string[] args)
    {
        ParseResult command;
        try
        {
            command = root.Parse(args.Length == 0 ? ["--help"] : args, new ParserConfiguration { ResponseFileTokenReplacer = null });
        }
        catch (InvalidOperationException error)  // a validator has asked for a value that can't be parsed
        {
            return await RefuseAsync([error.Message], Verbs(root, args));
        }
        if (Empty(command.CommandResult) is { } empty)
        {
            return await RefuseAsync([$"{empty} is empty; is a variable not set?"], Verbs(root, args));
        }
        if (command.Errors.Count > 0 && command.Action is not null and not System.CommandLine.Help.HelpAction)
        {
            return await RefuseAsync(command.Errors.Select(error => error.Message), Verbs(root, args));
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
        catch (TorchException error)
        {
            await Console.Error.WriteLineAsync(PlainText.Lines(error.IsOutOfMemory ? $"not enough memory: {error.Message}" : error.Message));
            return ExitCode.JobFailed;
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

    /// <summary>What was given without a character. Most are names of something; a text may be empty, and JOB has words of its own.</summary>
    private static string? Empty(CommandResult command) => command.Children.Select(child => child switch
    {
        OptionResult { Option.Name: not "--system" } option when HasEmpty(option.Tokens) => option.Option.Name,
        ArgumentResult { Argument.Name: not ("PROMPT" or "JOB") } argument when HasEmpty(argument.Tokens) => argument.Argument.Name,
        _ => null,
    }).FirstOrDefault(name => name is not null);

    private static bool HasEmpty(IReadOnlyList<Token> tokens) => tokens.Any(token => token.Value.Length == 0);

    private static async Task<int> RefuseAsync(IEnumerable<string> problems, IEnumerable<string> verbs)
    {
        foreach (string problem in problems)
        {
            await Console.Error.WriteLineAsync(PlainText.Lines(InWords(problem)));
        }
        await Console.Error.WriteLineAsync($"See \"trainer {string.Concat(verbs.Select(verb => verb + " "))}--help\".");
        return ExitCode.Usage;
    }

    /// <summary>The parser names types of .NET.</summary>
    private static string InWords(string message) => TypeName().Replace(LineEnd().Replace(message, " "), type => type.Groups[1].Value switch
    {
        "Int32" => $"an integer up to {int.MaxValue}",
        "Int64" => "an integer",
        "Double" => "a number",
        _ => type.Value,
    });

    /// <summary>A list of what is allowed has a line for each.</summary>
    [GeneratedRegex(@"\s*\n\s*")]
    private static partial Regex LineEnd();

    [GeneratedRegex(@"expected type '(?:System\.Nullable`1\[)?System\.(\w+)\]?'")]
    private static partial Regex TypeName();

    /// <summary>"checkpoints", "list": the words that lead to a command.</summary>
    private static IEnumerable<string> Verbs(Command command, IEnumerable<string> args) =>
        command.Subcommands.FirstOrDefault(verb => args.FirstOrDefault() == verb.Name) is { } next ? Verbs(next, args.Skip(1)).Prepend(next.Name) : [];
}
