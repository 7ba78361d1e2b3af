using System.CommandLine;
using System.Globalization;
using Trainer.Contracts;
using Trainer.Worker;

namespace Trainer.Cli.Commands;

internal static class Submit
{
    public static Command Create(Func<JobConfig, Preflight> preflight)
    {
        Argument<string> file = Shared.File();
        Option<string[]> sets = Shared.Sets();
        Option<string> format = Shared.Format();
        var follow = new Option<bool>("--follow", "-f") { Description = "Shows the job until it ends and exits with its outcome. Ctrl-C detaches, the job goes on." };
        var name = new Option<string?>("--name") { Description = "Replaces the name in the file." };
        var key = new Option<string?>("--id") { Description = "Idempotency key: the same key never submits twice.", HelpName = "key" };
        var priority = new Option<int?>("--priority") { Description = "Replaces the priority in the file; larger runs earlier." };
        var paused = new Option<bool>("--paused") { Description = "Waits for \"trainer resume\"." };
        var dryRun = new Option<bool>("--dry-run") { Description = "Checks everything, prints the complete configuration, submits nothing." };
        var command = new Command("submit", "Checks a job and hands it to the coordinator, which is started when none runs.")
        {
            file, follow, sets, name, key, priority, paused, dryRun, format,
        };
        command.SetAction(async (options, cancellationToken) =>
        {
            CoordinatorLocator local = CoordinatorLocator.FromEnvironment();
            // Found while the job is checked: each takes half a second.
            Task<CoordinatorClient?> finding = options.GetValue(dryRun) ? Task.FromResult<CoordinatorClient?>(null) : Task.Run(() => local.FindAsync(cancellationToken), cancellationToken);
            // Paths of a cluster's job are its workers': only they can look.
            (JobConfig job, IReadOnlyList<string> warnings) = Shared.Load(options.GetRequiredValue(file), Overrides(options), local.IsRemote ? _ => new Preflight([], []) : preflight);
            Shared.Warn(warnings);
            bool json = options.GetValue(format) == "json";
            if (options.GetValue(dryRun))
            {
                Console.WriteLine(JobConfigJson.Write(job));
                return ExitCode.Succeeded;
            }
            JobView submitted;
            using (CoordinatorClient client = await finding ?? await local.ConnectAsync(cancellationToken))
            {
                submitted = await client.SubmitAsync(
                    new SubmitRequest { Config = job, IdempotencyKey = options.GetValue(key), Paused = options.GetValue(paused) },
                    Environment.GetEnvironmentVariable("TRACEPARENT"), cancellationToken);
            }
            if (options.GetValue(follow))
            {
                return await FollowAsync(local, submitted.Id, json, cancellationToken);
            }
            if (json)
            {
                Shared.PrintJson(submitted);
            }
            else
            {
                PrintNext(submitted);
            }
            return ExitCode.Succeeded;
        });
        return command;

        IEnumerable<string> Overrides(ParseResult options)
        {
            foreach (string set in options.GetValue(sets)!)
            {
                yield return set;
            }
            if (options.GetValue(name) is { } newName)
            {
                yield return $"name={newName}";
            }
            if (options.GetValue(priority) is { } newPriority)
            {
                yield return $"priority={newPriority.ToString(CultureInfo.InvariantCulture)}";
            }
        }
    }

    private static async Task<int> FollowAsync(CoordinatorLocator local, JobId id, bool json, CancellationToken cancellationToken)
    {
        TextWriter output = json ? Console.Error : Console.Out;
        try
        {
            await output.WriteLineAsync($"submitted {id} (Ctrl-C detaches, the job goes on)");
            JobView job = await new JobFollower(local, id, output).FollowAsync(cancellationToken);
            if (json)
            {
                Shared.PrintJson(job);
            }
            else if (job.Status is JobStatus.Succeeded)
            {
                // Rank 0 may have run in another home, from which the coordinator's has copies of logs and metrics.
                bool here = local.FilesOf(job) is { } files && File.Exists(files.Attempt(job.Attempt).Result);
                Console.WriteLine(here ? $"{job.Id}: files are in {job.Directory}" : $"{job.Id}: files are on node {job.Nodes.FirstOrDefault()}");
            }
            return ExitCode.Of(job.Status);
        }
        catch (OperationCanceledException)
        {
            await Console.Error.WriteLineAsync($"detached; {id} goes on (trainer logs {id} -f)");
            return ExitCode.Detached;
        }
    }

    private static void PrintNext(JobView job)
    {
        Shared.PrintLine(job);
        Console.WriteLine($"""
              follow   trainer logs {job.Id} -f
              status   trainer status {job.Id}
              cancel   trainer cancel {job.Id}
            """);
    }
}
