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
        var rank = new Option<int>("--rank") { Description = "Of this rank of several.", DefaultValueFactory = _ => 0 };
        var stderr = new Option<bool>("--stderr") { Description = "What the rank wrote to stderr instead of stdout." };
        var command = new Command("logs", "Prints what the rank of a job wrote.") { id, follow, attempt, rank, stderr };
        command.SetAction(async (options, cancellationToken) =>
        {
            CoordinatorLocator locator = CoordinatorLocator.FromEnvironment();
            CoordinatorClient client = await locator.ConnectAsync(cancellationToken);
            try
            {
                JobView job = await client.GetAsync(options.GetRequiredValue(id), cancellationToken);
                if (options.GetValue(rank) is var asked && (asked < 0 || asked >= job.Ranks))
                {
                    throw new ConfigException($"--rank {asked}: {job.Id} has {(job.Ranks == 1 ? "rank 0 only" : $"ranks 0 to {job.Ranks - 1}")}");
                }
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
                    try
                    {
                        if (wanted != shown)
                        {
                            await PrintAsync(tail, client, atEnd: true, cancellationToken);
                            tail = new LogTail(new RankName(job.Id, wanted, options.GetValue(rank)), options.GetValue(stderr) ? LogStream.Stderr : LogStream.Stdout, locator.FilesOf(job), job.Status.IsTerminal());
                            shown = wanted;
                        }
                        await PrintAsync(tail, client, last, cancellationToken);
                        if (last)
                        {
                            if (wanted == 0)
                            {
                                await Console.Error.WriteLineAsync(PlainText.OneLine($"{job.Id} has not started: {Spelling.Of(job.Status)}{(job.Reason is null ? "" : $" ({job.Reason})")}"));
                            }
                            return options.GetValue(follow) ? ExitCode.Of(job.Status) : ExitCode.Succeeded;
                        }
                        // A job that waits has no attempt yet, and nothing to read.
                        await JobNews.WaitAsync(client, job, tail is null ? [] : [tail], cancellationToken);
                        job = await client.GetAsync(job.Id.Value, cancellationToken);
                    }
                    catch (CoordinatorException error) when (error.Status is null && options.GetValue(follow))
                    {
                        client.Dispose();
                        await Task.Delay(s_often, cancellationToken);
                        client = await locator.ConnectAsync(cancellationToken);
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

    private static async Task PrintAsync(LogTail? tail, CoordinatorClient client, bool atEnd, CancellationToken cancellationToken)
    {
        foreach (string line in tail is null ? [] : await tail.NewLinesAsync(client, atEnd, cancellationToken))
        {
            Console.WriteLine(line);
        }
    }
}
