using System.CommandLine;
using Trainer.Contracts;
using Trainer.Coordinator;
using Trainer.Worker;
using Trainer.Worker.Agent;
using Trainer.Worker.Checkpoints;

namespace Trainer.Cli.Commands;

internal static class Serve
{
    /// <summary>Of a person who waits for a store that is away.</summary>
    private static readonly TimeSpan s_storePatience = TimeSpan.FromSeconds(10);

    public static Command Create()
    {
        var listen = new Option<string[]>("--listen") { Description = "Addresses besides the Unix socket, such as https://0.0.0.0:5443. May be repeated.", HelpName = "URL", DefaultValueFactory = _ => [] };
        var tokens = new Option<string?>("--tokens") { Description = "Who may use them: a list that \"trainer token\" writes.", HelpName = "FILE" };
        var certificate = new Option<string?>("--certificate") { Description = "PEM file for https.", HelpName = "FILE" };
        var key = new Option<string?>("--key") { Description = "PEM file of its key.", HelpName = "FILE" };
        var store = new Option<string?>("--store") { Description = "Where jobs that name no checkpoint store keep theirs: azblob://CONTAINER/PREFIX, or a directory that all workers reach." };
        var logFormat = new Option<string>("--log-format") { Description = "text, or json for log collectors.", DefaultValueFactory = _ => "text" };
        logFormat.AcceptOnlyFromAmong("text", "json");
        var database = new Option<string?>("--database") { Description = "PostgreSQL that several coordinators share, \"Host=...;Database=...;Username=...\". Default: TRAINER_DATABASE.", HelpName = "CONNECTION" };
        var cluster = new Option<string?>("--cluster") { Description = "Which of the database's clusters it joins. Default: trainer.", HelpName = "NAME" };
        var silo = new Option<string?>("--silo") { Description = "Where the cluster's other coordinators reach this one. Default: 127.0.0.1:11111.", HelpName = "ADDRESS" };
        var siloCertificate = new Option<string?>("--silo-certificate") { Description = "PEM file by which the cluster's coordinators know each other, the same for all.", HelpName = "FILE" };
        var siloKey = new Option<string?>("--silo-key") { Description = "PEM file of its key.", HelpName = "FILE" };
        var noWorker = new Option<bool>("--no-worker") { Description = "Runs no ranks on this machine itself." };
        Option<int?> slots = Worker.Slots();
        var command = new Command("serve", "Runs the coordinator in the foreground, with a worker for this machine. Ranks outlive it and are found again.")
        {
            listen, tokens, certificate, key, store, logFormat, noWorker, slots, database, cluster, silo, siloCertificate, siloKey,
        };
        command.Validators.Add(result =>
        {
            if (result.GetValue(noWorker) && result.GetValue(slots) is not null)
            {
                result.AddError($"{slots.Name}: with {noWorker.Name} no ranks run on this machine itself");
            }
        });
        command.SetAction(async (options, cancellationToken) =>
        {
            TrainerHome home = TrainerHome.FromEnvironment();
            CoordinatorEndpoints endpoints = CoordinatorEndpoints.Create(
                options.GetValue(listen)!, options.GetValue(tokens), options.GetValue(certificate), options.GetValue(key));
            CoordinatorCluster? joined = CoordinatorCluster.Create(options.GetValue(database) ?? Environment.GetEnvironmentVariable("TRAINER_DATABASE"),
                options.GetValue(cluster), options.GetValue(silo), options.GetValue(siloCertificate), options.GetValue(siloKey));
            string? place = options.GetValue(store) is { } given ? Usable(given) : null;
            CoordinatorOptions knobs = CoordinatorOptions.FromEnvironment() with
            {
                Store = place,
                OpenCheckpoint = OpenCheckpointAsync,
                OpenLogStore = address => OpenLogStore(address, place),
                JsonLog = options.GetValue(logFormat) == "json",
            };
            try
            {
                await using CoordinatorHost host = await CoordinatorHost.StartAsync(home, knobs, endpoints, joined, cancellationToken);
                await using IAsyncDisposable? agent = options.GetValue(noWorker) ? null
                    : await Agent.StartAsync(AgentOptions.OfThisMachine(home, home.Socket, "local", options.GetValue(slots)) with { Logs = host.Logs }, cancellationToken);
                Console.WriteLine($"the coordinator answers on {string.Join(", ", endpoints.Addresses.Select(address => address.ToString()).Prepend(home.Socket))}");
                await host.WaitForShutdownAsync(cancellationToken);
                return ExitCode.Succeeded;
            }
            catch (CoordinatorRunningException error)
            {
                await Console.Error.WriteLineAsync(error.Message);
                return ExitCode.Usage;
            }
        });
        return command;
    }

    /// <summary>The full address of the coordinator's own store, looked at before jobs are given it.</summary>
    /// <exception cref="ConfigException">It can be none, or nothing can be written there.</exception>
    private static string Usable(string store)
    {
        try
        {
            if (store.Contains("://", StringComparison.Ordinal))
            {
                return store.StartsWith(BlobAddress.Scheme, StringComparison.Ordinal) && BlobAddress.Parse(store) is not null ? store : throw new ArgumentException("unknown kind of store");
            }
            string folder = Path.GetFullPath(store);
            Directory.CreateDirectory(folder);
            using var probe = new FileStream(Path.Combine(folder, $".{Guid.NewGuid():N}"), FileMode.CreateNew, FileAccess.Write, FileShare.None, 1, FileOptions.DeleteOnClose);
            return folder;
        }
        catch (Exception error) when (error is JobInputException or IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw new ConfigException($"--store {store}: {error.Message.TrimEnd('.')}; azblob://CONTAINER/PREFIX, or a directory that all workers reach and that is yours to write, is expected");
        }
    }

    private static async Task<Func<Stream, CancellationToken, Task>> OpenCheckpointAsync(string store, long step, CancellationToken cancellationToken)
    {
        if (!store.Contains("://", StringComparison.Ordinal) && !Directory.Exists(store))
        {
            throw new ConfigException($"{store}: these checkpoints are not on the coordinator's machine; \"trainer checkpoints download\" copies them where they are");
        }
        try
        {
            return (await CheckpointArchive.OpenAsync(CheckpointStore.Open(store, patience: s_storePatience), step, cancellationToken)).WriteAsync;
        }
        catch (Exception error) when (error is JobInputException or InvalidDataException)
        {
            throw new ConfigException(error.Message);
        }
    }

    /// <param name="address">Of a job's store.</param>
    /// <param name="own">The coordinator's own, below which a job's folder may be made here.</param>
    private static LogStore? OpenLogStore(string address, string? own)
    {
        if (!address.Contains("://", StringComparison.Ordinal) && !Directory.Exists(address)
            && (own is null || !address.StartsWith(own.TrimEnd('/') + '/', StringComparison.Ordinal)))
        {
            return null;
        }
        ICheckpointStore store = CheckpointStore.Open(address, patience: s_storePatience);
        return new LogStore(
            (path, bytes, cancellationToken) => store.WriteAsync(path, async (stream, token) => await stream.WriteAsync(bytes, token), cancellationToken),
            async (path, cancellationToken) =>
            {
                await using Stream file = await store.OpenReadAsync(path, cancellationToken);
                using var content = new MemoryStream();
                await file.CopyToAsync(content, cancellationToken);
                return content.ToArray();
            },
            store.DeleteAsync);
    }
}
