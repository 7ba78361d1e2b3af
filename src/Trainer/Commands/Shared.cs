using System.CommandLine;
using System.CommandLine.Parsing;
using System.Text.Json;
using System.Text.RegularExpressions;
using Trainer.Contracts;
using Trainer.Worker;

namespace Trainer.Cli.Commands;

/// <summary>Arguments and options that several verbs take, and how a job is printed.</summary>
internal static partial class Shared
{
    public static Argument<string> Job()
    {
        var job = new Argument<string>("JOB") { HelpName = "JOB", Description = "A job id, a unique job name, or the beginning of an id." };
        job.CompletionSources.Add(_ => JobIds());
        // Such as an unset "$JOB"; the others would lead out of the jobs' place in the API.
        job.Validators.Add(result =>
        {
            if (result.Tokens is [{ Value: var given }] && (string.IsNullOrWhiteSpace(given) || given is "." or ".."))
            {
                result.AddError($"JOB {PlainText.Quote(given)} names no job; see \"trainer list\"");
            }
        });
        return job;
    }

    public static Argument<string> File() => new("FILE") { Description = "The job: a YAML file, see configs/." };

    public static Option<string[]> Sets() => new("--set")
    {
        Description = "Overrides a key of the file, such as --set optimizer.learning_rate=2e-5 or --set data.train[0].limit=100. May be repeated.",
        HelpName = "key=value",
        DefaultValueFactory = _ => [],
    };

    public static Option<string> Format()
    {
        var option = new Option<string>("-o", "--output") { Description = "text, or json for programs.", DefaultValueFactory = _ => "text" };
        option.AcceptOnlyFromAmong("text", "json");
        return option;
    }

    /// <summary>An option with the values of an enum, as YAML spells them. The library's own takes numbers, and several at once for one.</summary>
    public static Option<T> Choice<T>(string name, string description) where T : struct, Enum
    {
        var option = new Option<T>(name) { Description = description, CustomParser = result => Spelled<T>(name, result).FirstOrDefault() };
        option.CompletionSources.Clear();
        option.CompletionSources.Add([.. Spelling.Values<T>().Select(value => value.Text)]);
        return option;
    }

    /// <summary>The same, of several values; empty: none is given.</summary>
    public static Option<T[]> Choices<T>(string name, string description) where T : struct, Enum
    {
        var option = new Option<T[]>(name)
        {
            Description = description,
            AllowMultipleArgumentsPerToken = true,
            CustomParser = result => [.. Spelled<T>(name, result)],
        };
        option.CompletionSources.Clear();
        option.CompletionSources.Add([.. Spelling.Values<T>().Select(value => value.Text)]);
        return option;
    }

    private static List<T> Spelled<T>(string option, ArgumentResult result) where T : struct, Enum
    {
        var values = new List<T>();
        foreach (string given in result.Tokens.Select(token => token.Value))
        {
            (string Text, T Value)[] found = [.. Spelling.Values<T>().Where(value => value.Text.Equals(given, StringComparison.OrdinalIgnoreCase))];
            if (found.Length == 0)
            {
                result.AddError($"{option}: {PlainText.Quote(given)} is not one of {string.Join(", ", Spelling.Values<T>().Select(value => value.Text))}");
            }
            values.AddRange(found.Select(value => value.Value));
        }
        return values;
    }

    /// <summary>Loads the file and looks at what else the job names.</summary>
    /// <returns>The job, and what to warn of.</returns>
    /// <exception cref="ConfigException">Anything is wrong.</exception>
    public static (JobConfig Job, IReadOnlyList<string> Warnings) Load(string file, IEnumerable<string> sets, Func<JobConfig, Preflight> preflight)
    {
        JobConfig job = JobConfigFile.Load(file, sets);
        (IReadOnlyList<string> problems, IReadOnlyList<string> warnings) = preflight(job);
        return problems.Count == 0 ? (job, [.. warnings.Select(warning => $"{file}: warning: {warning}")]) : throw new ConfigException([.. problems.Select(Located)]);

        // "data.train[0].path: what" is a problem of a key; others name the file that they are about.
        string Located(string problem) => Key().Match(problem) is { Success: true } key
            ? $"{JobConfigFile.Place(file, sets, key.Groups[1].Value)}{problem[key.Groups[1].Length..]}"
            : $"{file}: {problem}";
    }

    public static void Warn(IReadOnlyList<string> warnings)
    {
        foreach (string warning in warnings)
        {
            Console.Error.WriteLine(PlainText.Lines(warning));
        }
    }

    /// <summary>The folder of a job, by id or unique name, on the machine that trained it.</summary>
    /// <exception cref="ConfigException">Its checkpoints are on another machine.</exception>
    public static async Task<JobFiles> FilesAsync(string job, CancellationToken cancellationToken)
    {
        using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
        JobView found = await client.GetAsync(job, cancellationToken);
        var files = new JobFiles(found.Directory);
        CheckpointList list = await client.CheckpointsAsync(found.Id.Value, cancellationToken);
        if (list.Store is not { } store || store.Contains("://", StringComparison.Ordinal) || store == files.Checkpoints || list.Checkpoints.IsEmpty)
        {
            return files;
        }
        // A worker of this machine keeps what it trains in a home of its own.
        JobFiles theirs = new(Path.GetDirectoryName(store) ?? store);
        return System.IO.File.Exists(theirs.Config) ? theirs
            : Directory.Exists(store) ? files
            : throw new ConfigException($"{found.Id}: its checkpoints are in {store} of the machine that trained it, node {found.Nodes.FirstOrDefault() ?? "unknown"}; "
                + "run this command there, or name a store that this machine reaches (checkpoint.store, serve --store)");
    }

    /// <summary>The full path of --out, looked at before anything takes minutes.</summary>
    /// <exception cref="ConfigException">Nothing can be written there.</exception>
    public static string OutFolder(string folder)
    {
        if (string.IsNullOrWhiteSpace(folder))
        {
            throw new ConfigException("--out is blank; name a folder that does not exist yet");
        }
        string target = Path.GetFullPath(folder);
        if (NewFolder.Problem(target) is { } problem)
        {
            throw new ConfigException($"--out {folder}: {problem}");
        }
        return NewFolder.IsTaken(target)
            ? throw new ConfigException($"--out {folder}: the folder is not empty; name another one or remove it")
            : target;
    }

    public static void Print(JobView job, string? format)
    {
        if (format == "json")
        {
            PrintJson(job);
        }
        else
        {
            PrintLine(job);
        }
    }

    /// <summary>Looks at a job before it is asked for what only jobs do that go on.</summary>
    /// <exception cref="ConfigException">It has ended.</exception>
    public static async Task NotEndedAsync(CoordinatorClient client, string job, string verb, CancellationToken cancellationToken)
    {
        JobView view = await client.GetAsync(job, cancellationToken);
        if (view.Status.IsTerminal())
        {
            throw new ConfigException($"{view.Id} has already ended ({Spelling.Of(view.Status)}); nothing to {verb}");
        }
    }

    public static void PrintJson(JobView job) => Console.WriteLine(JsonSerializer.Serialize(job, ContractsJson.Default.JobView));

    /// <summary>For a shell that completes a word: of a coordinator that answers at once, else none.</summary>
    private static string[] JobIds()
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(1));
        try
        {
            return Task.Run(async () =>
            {
                using CoordinatorClient? client = await CoordinatorLocator.FromEnvironment().FindAsync(limit.Token);
                return client is null ? Array.Empty<string>() : (await client.ListAsync(limit.Token)).Jobs.Reverse().Select(job => job.Id.Value).ToArray();
            }).GetAwaiter().GetResult();
        }
        catch (Exception error) when (error is CoordinatorException or OperationCanceledException or ConfigException)
        {
            return [];
        }
    }

    [GeneratedRegex(@"^([a-z_]+(?:\.[a-z_]+|\[\d+\])+): ")]
    private static partial Regex Key();

    /// <summary>One line: what the job does now.</summary>
    public static void PrintLine(JobView job) =>
        Console.WriteLine($"{job.Id}: {Spelling.Of(job.Status)}{(job.Reason is null || job.Reason == Spelling.Of(job.Status) ? "" : $" ({PlainText.OneLine(job.Reason)})")}");
}
