using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Spectre.Console;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer checkpoints list|verify|download</c>: what a job has saved.</summary>
internal static class Checkpoints
{
    /// <summary>Of a person who waits for a store that is away.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);

    public static Command Create() => new("checkpoints", "Shows, verifies or copies the checkpoints of a job.")
    {
        List(), Verify(), Download(),
    };

    private static Command List()
    {
        Argument<string> id = Shared.Job();
        Option<string> format = Shared.Format();
        var all = new Option<bool>("--all") { Description = "Also those that retention has removed." };
        var command = new Command("list", "The checkpoints of a job, as the coordinator knows them.") { id, all, format };
        command.SetAction(async (options, cancellationToken) =>
        {
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            CheckpointList list = await client.CheckpointsAsync(options.GetRequiredValue(id), cancellationToken);
            CheckpointEntry[] shown = [.. list.Checkpoints.Where(entry => options.GetValue(all) || entry.Status is not CheckpointStatus.Removed)];
            if (options.GetValue(format) == "json")
            {
                Console.WriteLine(JsonSerializer.Serialize(list with { Checkpoints = [.. shown] }, ContractsJson.Default.CheckpointList));
            }
            else if (shown.Length == 0)
            {
                Console.WriteLine($"{list.Job} has no checkpoints yet");
            }
            else
            {
                Print(list.Job, list.Store, shown);
            }
            return ExitCode.Succeeded;
        });
        return command;
    }

    private static Command Verify()
    {
        Argument<string> id = Shared.Job();
        (Argument<long?> step, Option<long?> stepOption) = Step("Default: all.");
        var command = new Command("verify", "Reads checkpoints from their store and compares every file with its length and hash. Exits with 1 when one is damaged or missing.") { id, step, stepOption };
        command.SetAction(async (options, cancellationToken) =>
        {
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            (JobId job, ICheckpointStore store) = await OpenAsync(client, options.GetRequiredValue(id), cancellationToken);
            var reader = new CheckpointReader(store, TimeProvider.System);
            IReadOnlyList<long> steps = await reader.StepsAsync(cancellationToken);
            bool damaged = false;
            if (OneOf(options.GetValue(step), options.GetValue(stepOption)) is { } wanted)
            {
                steps = steps.Contains(wanted) ? [wanted] : throw new ConfigException($"{store.Address}: no checkpoint of step {wanted}; there are "
                    + (steps.Count == 0 ? "none" : $"steps {string.Join(", ", steps)}"));
            }
            else
            {
                foreach (CheckpointEntry gone in await MissingAsync(client, job, steps, cancellationToken))
                {
                    Console.WriteLine(PlainText.Lines($"{store.Address}: step {gone.Step} is missing: it was committed, and is no longer there"));
                    damaged = true;
                }
            }
            foreach (long each in steps)
            {
                CheckpointFinding? finding = await reader.JudgeAsync(each, cancellationToken);
                damaged |= finding is { State: CheckpointState.Quarantined };
                await TellAsync(client, job, finding, cancellationToken);
            }
            return damaged ? ExitCode.JobFailed : ExitCode.Succeeded;
        });
        return command;
    }

    private static Command Download()
    {
        Argument<string> id = Shared.Job();
        (Argument<long?> step, Option<long?> stepOption) = Step("Default: the newest good one.");
        var folder = new Option<string>("--out") { Description = "Where to write; must not exist or be empty.", Required = true, HelpName = "DIR" };
        var command = new Command("download", "Copies all files of a checkpoint, verified on their way. A job continues from the copy with checkpoint.resume_from.") { id, step, stepOption, folder };
        command.SetAction(async (options, cancellationToken) =>
        {
            string target = Shared.OutFolder(options.GetRequiredValue(folder));
            using CoordinatorClient client = await CoordinatorLocator.FromEnvironment().ConnectAsync(cancellationToken);
            (_, ICheckpointStore store) = await OpenAsync(client, options.GetRequiredValue(id), cancellationToken);
            try
            {
                CheckpointManifest manifest = await CheckpointCopy.WriteAsync(store, OneOf(options.GetValue(step), options.GetValue(stepOption)), target, cancellationToken,
                    passedOver: problem => Console.Error.WriteLine($"warning: {PlainText.OneLine(problem)}"));
                Console.WriteLine($"step {manifest.Step} written to {target} ({manifest.Files.Count} files, {Size(manifest.Files.Sum(file => file.Length))})");
                return ExitCode.Succeeded;
            }
            catch (InvalidDataException error)
            {
                await Console.Error.WriteLineAsync(PlainText.Lines(error.Message));
                return ExitCode.JobFailed;
            }
        });
        return command;
    }

    private static long? OneOf(long? bare, long? named) =>
        bare is null || named is null || bare == named ? bare ?? named : throw new ConfigException($"STEP is {bare} and --step {named}; give one of them");

    /// <summary>Bare, or as export and generate take it.</summary>
    private static (Argument<long?> Bare, Option<long?> Named) Step(string description) =>
        (new("STEP") { Description = $"Of this step. {description}", Arity = ArgumentArity.ZeroOrOne },
        new("--step") { Description = "The same.", HelpName = "N" });

    /// <summary>Ranks tell where their store is. A directory is one of the machine that they run on.</summary>
    private static async Task<(JobId Job, ICheckpointStore Store)> OpenAsync(CoordinatorClient client, string job, CancellationToken cancellationToken)
    {
        CheckpointList list = await client.CheckpointsAsync(job, cancellationToken);
        string address = list.Store ?? throw new ConfigException($"{list.Job} has no checkpoints yet");
        return address.Contains("://", StringComparison.Ordinal) || Directory.Exists(address)
            ? (list.Job, CheckpointStore.Open(address, patience: s_patience))
            : throw new ConfigException($"{address}: the checkpoints of {list.Job} are not on this machine; ask on one that has this directory");
    }

    private static async Task<CheckpointEntry[]> MissingAsync(CoordinatorClient client, JobId job, IReadOnlyList<long> there, CancellationToken cancellationToken)
    {
        if ((await FindAsync()).Length == 0)
        {
            return [];
        }
        // What retention removed, or a rank committed, a moment ago is told with a next heartbeat.
        await Task.Delay(TimeSpan.FromSeconds(3), cancellationToken);
        return await FindAsync();

        async Task<CheckpointEntry[]> FindAsync() =>
            [.. (await client.CheckpointsAsync(job.Value, cancellationToken)).Checkpoints.Where(entry => entry.Status is CheckpointStatus.Committed && !there.Contains(entry.Step))];
    }

    private static async Task TellAsync(CoordinatorClient client, JobId job, CheckpointFinding? finding, CancellationToken cancellationToken)
    {
        if (finding is null)
        {
            // Retention removed it meanwhile.
            return;
        }
        bool good = finding.State is CheckpointState.Good;
        Console.WriteLine(good ? $"step {finding.Step}: good" : PlainText.Lines(finding.Message ?? ""));
        if (finding.State is CheckpointState.Incomplete)
        {
            // Nothing was promised of it.
            return;
        }
        CheckpointEntry[] known = [.. (await client.CheckpointsAsync(job.Value, cancellationToken)).Checkpoints.Where(entry => entry.Step == finding.Step)];
        if (known.LastOrDefault(entry => finding.Manifest is null || entry.Attempt == finding.Manifest.Attempt) is { } entry)
        {
            await client.JudgeCheckpointAsync(job.Value, finding.Step, new CheckpointVerdict { Attempt = entry.Attempt, Damage = finding.Damage }, cancellationToken);
        }
    }

    private static void Print(JobId job, string? store, CheckpointEntry[] listed)
    {
        var table = new Table { Border = TableBorder.None };
        table.AddColumns("STEP", "ATTEMPT", "SIZE", "AGE", "EVAL LOSS", "STATE");
        foreach (CheckpointEntry entry in listed)
        {
            string[] cells = [
                entry.Step.ToString(CultureInfo.InvariantCulture),
                entry.Attempt.ToString(CultureInfo.InvariantCulture),
                entry.Bytes is { } bytes ? Size(bytes) : "",
                entry.CommittedAt is { } committed ? Ago(committed) : "",
                (entry.EvalLoss?.ToString("0.0000", CultureInfo.InvariantCulture) ?? "") + (entry.Best ? " best" : ""),
                entry.Status is not CheckpointStatus.Committed ? Spelling.Of(entry.Status) + (entry.Reason is null ? "" : $": {entry.Reason}")
                    : entry.VerifiedAt is { } verified ? $"verified {Ago(verified)} ago" : "committed",
            ];
            table.AddRow(cells.Select(cell => new Text(PlainText.OneLine(cell))));
        }
        if (Console.IsOutputRedirected)
        {
            // One checkpoint a line, for grep.
            AnsiConsole.Profile.Width = 1000;
        }
        AnsiConsole.Write(table);
        Console.WriteLine($"in {PlainText.OneLine(store ?? "")}");
        if (listed.Any(entry => entry.Status is CheckpointStatus.Quarantined))
        {
            Console.WriteLine($"Quarantined ones are damaged and not used: a job goes on from the newest good one. \"trainer checkpoints verify {job}\" says how to use one again.");
        }

        static string Ago(DateTimeOffset time) => Progress.Span((DateTimeOffset.UtcNow - time).TotalSeconds);
    }

    private static string Size(long bytes) => bytes switch
    {
        < 1 << 20 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1024.0:0.0} KiB"),
        < 1 << 30 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1048576.0:0.0} MiB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1073741824.0:0.0} GiB"),
    };
}
