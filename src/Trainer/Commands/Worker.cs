using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;
using Trainer.Contracts;
using Trainer.Worker.Agent;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer worker</c>: gives this machine's devices to a coordinator.</summary>
internal static class Worker
{
    /// <summary>More no coordinator takes.</summary>
    private const int MostSlots = 1024;

    public static Command Create()
    {
        var coordinator = new Option<string?>("--coordinator") { Description = "http(s)://host:port or the path of a Unix socket; default: TRAINER_COORDINATOR, else the coordinator of this home. Its token: TRAINER_TOKEN." };
        var name = new Option<string>("--name") { Description = "Name of this node, unique in the cluster; default: the host's.", DefaultValueFactory = _ => HostName() };
        var pool = new Option<string>("--pool") { Description = "The pool that the node belongs to.", DefaultValueFactory = _ => "default" };
        Option<int?> slots = Slots();
        var host = new Option<string>("--host") { Description = "Where ranks on other nodes reach this one.", DefaultValueFactory = _ => "127.0.0.1" };
        var drain = new Option<int>("--drain-timeout") { Description = "Seconds that ranks have to save and stop after SIGTERM.", DefaultValueFactory = _ => 600 };
        foreach (Option<string> option in (Option<string>[])[name, pool])
        {
            option.Validators.Add(result =>
            {
                string given = result.GetValueOrDefault<string>();
                if (!IsName(given))
                {
                    result.AddError($"{option.Name}: \"{given}\" is no name; use 1 to 63 lower-case letters, digits, '-', '.', '_', starting with a letter or digit");
                }
            });
        }
        host.Validators.Add(result =>
        {
            if (Uri.CheckHostName(result.GetValueOrDefault<string>()) is UriHostNameType.Unknown)
            {
                result.AddError($"{host.Name}: \"{result.GetValueOrDefault<string>()}\" is neither a host's name nor an address");
            }
        });
        drain.Validators.Add(result => Positive(result.GetValueOrDefault<int>(), drain.Name, result.AddError));
        var command = new Command("worker", "Runs ranks on this machine for a coordinator. SIGTERM: ranks save a checkpoint, then it ends.") { coordinator, name, pool, slots, host, drain };
        command.SetAction((parsed, cancellationToken) =>
        {
            TrainerHome home = TrainerHome.FromEnvironment();
            AgentOptions options = AgentOptions.OfThisMachine(home, Coordinator(parsed.GetValue(coordinator), home), parsed.GetValue(name)!, parsed.GetValue(slots));
            return RunAsync(options with { Pool = parsed.GetValue(pool)!, Host = parsed.GetValue(host)! }, TimeSpan.FromSeconds(parsed.GetValue(drain)), cancellationToken);
        });
        return command;
    }

    /// <summary>The option of whatever gives this machine's devices to jobs.</summary>
    public static Option<int?> Slots()
    {
        var slots = new Option<int?>("--slots") { Description = "How many ranks may run at once; default: one for each CUDA device, else 1." };
        slots.Validators.Add(result => Positive(result.GetValueOrDefault<int?>() ?? 1, slots.Name, result.AddError, MostSlots));
        return slots;
    }

    private static async Task<int> RunAsync(AgentOptions options, TimeSpan drainTimeout, CancellationToken cancellationToken)
    {
        using ILoggerFactory logs = LoggerFactory.Create(logging => logging.AddFilter("Microsoft", LogLevel.Warning).AddSimpleConsole(console =>
        {
            console.SingleLine = true;
            console.UseUtcTimestamp = true;
            console.TimestampFormat = "yyyy-MM-ddTHH:mm:ss.fffZ ";
        }));
        var told = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using PosixSignalRegistration terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Told);
        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Told);

        await using Agent agent = await Agent.StartAsync(options with { Logs = logs }, cancellationToken);
        Console.WriteLine($"node {options.Node} gives {options.Slots} {Spelling.Of(options.Kind)} slots of pool {options.Pool} to {options.Coordinator}");
        Task<bool> drained = DrainAsync();
        if (await Task.WhenAny(drained, agent.Completion) != drained)
        {
            return await RefusedAsync(agent.Completion);
        }
        return await drained ? ExitCode.Succeeded : ExitCode.JobFailed;

        void Told(PosixSignalContext context)
        {
            context.Cancel = true;
            told.TrySetResult();
        }

        async Task<bool> DrainAsync()
        {
            await told.Task;
            return await agent.DrainAsync(drainTimeout, cancellationToken);
        }
    }

    private static async Task<int> RefusedAsync(Task completion)
    {
        try
        {
            await completion;
            return ExitCode.Succeeded;
        }
        catch (CoordinatorException refusal)
        {
            await Console.Error.WriteLineAsync(refusal.Message);
            return ExitCode.Unreachable;
        }
    }

    private static string Coordinator(string? given, TrainerHome home)
    {
        string? address = given ?? (Environment.GetEnvironmentVariable("TRAINER_COORDINATOR") is { Length: > 0 } variable ? variable : null);
        return address is null ? home.Socket : address.Contains("://", StringComparison.Ordinal) ? address : Path.GetFullPath(address);
    }

    private static void Positive(int value, string option, Action<string> refuse, int most = int.MaxValue)
    {
        if (value < 1 || value > most)
        {
            refuse(string.Create(CultureInfo.InvariantCulture, $"{option}: {value} is out of range; use 1 {(most == int.MaxValue ? "or more" : $"to {most}")}"));
        }
    }

    /// <summary>The host's name as names are spelt here.</summary>
    private static string HostName()
    {
        string valid = new([.. Environment.MachineName.ToLowerInvariant().Select(letter => IsLetter(letter) || letter is '-' or '.' or '_' ? letter : '-').SkipWhile(letter => !IsLetter(letter)).Take(63)]);
        return valid.Length > 0 ? valid : "node";
    }

    private static bool IsName(string text) =>
        text.Length is > 0 and <= 63 && IsLetter(text[0]) && text.All(letter => IsLetter(letter) || letter is '-' or '.' or '_');

    private static bool IsLetter(char letter) => letter is (>= 'a' and <= 'z') or (>= '0' and <= '9');
}
