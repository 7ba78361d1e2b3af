using System.CommandLine;
using Trainer.Contracts;

namespace Trainer.Cli.Commands;

internal static class Logs
{
    private static readonly TimeSpan s_often = TimeSpan.FromMilliseconds(300);

    public static Command Create()
    {
        Argument<string> id = Shared.Job();
        var follow = new Option<bool>("--follow", "-f") { Description = "Waits for more until the job ends; exits with its outcome." };
        var attempt = new Option<int?>("--attempt") { Description = "Of this attempt. Default: the newest." };
        var stderr = new Option<bool>("--stderr") { Description = "What the rank wrote to stderr instead of stdout." };
        var command = new Command("logs", "Prints what the rank of a job wrote.") { id, follow, attempt, stderr };
        command.SetAction(async (options, cancellationToken) =>
        {
            LocalCoordinator local = LocalCoordinator.FromEnvironment();
            CoordinatorClient client = await local.ConnectAsync(cancellationToken);
            try
            {
                JobView job = await client.GetAsync(options.GetRequiredValue(id), cancellationToken);
                int shown = 0;
                LogTail? tail = null;
                while (true)
                {
                    int wanted = options.GetValue(attempt) ?? job.Attempt;
                    if (options.GetValue(attempt) is { } given && (given < 1 || given > job.Attempt))
                    {
                        throw new ConfigException($"--attempt {given}: {job.Id} has {(job.Attempt == 0 ? "no attempt yet" : $"attempts 1 to {job.Attempt}")}");
                    }
                    bool last = !options.GetValue(follow) || job.Status.IsTerminal() || wanted < job.Attempt;
                    if (wanted != shown)
                    {
                        Print(tail, atEnd: true);
                        tail = new LogTail(PathOf(new JobFiles(job.Directory), wanted, options.GetValue(stderr)));
                        shown = wanted;
                    }
                    Print(tail, last);
                    if (last)
                    {
                        return options.GetValue(follow) ? ExitCode.Of(job.Status) : ExitCode.Succeeded;
                    }
                    await Task.Delay(s_often, cancellationToken);
                    try
                    {
                        job = await client.GetAsync(job.Id.Value, cancellationToken);
                    }
                    catch (CoordinatorException error) when (error.Status is null)
                    {
                        client.Dispose();
                        client = await local.ConnectAsync(cancellationToken);
                    }
                }
            }
            finally
            {
                client.Dispose();
            }
        });
        return command;
    }

    private static string PathOf(JobFiles files, int attempt, bool stderr)
    {
        AttemptFiles own = files.Attempt(attempt);
        return stderr ? own.Stderr : own.Stdout;
    }

    private static void Print(LogTail? tail, bool atEnd)
    {
        foreach (string line in tail?.NewLines(atEnd) ?? [])
        {
            Console.WriteLine(line);
        }
    }
}
