using System.Net;
using System.Text;
using Microsoft.Extensions.Logging;
using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>
/// The worker agent of a node: says to the coordinator how its ranks are, and runs what comes back as orders. Ranks outlive it, and
/// the next agent of the same home finds them; a coordinator that is away changes nothing. Never loads the tensor library.
/// </summary>
public sealed partial class Agent : IAsyncDisposable
{
    private static readonly TimeSpan s_answerTakes = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan s_newsWait = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan s_longestBackoff = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan s_shortestBackoff = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan s_busyLook = TimeSpan.FromMilliseconds(20);
    private static readonly TimeSpan s_farewellTakes = TimeSpan.FromSeconds(10);

    /// <summary>Until an agent that is to end asks its ranks itself, because no coordinator does: longer than one takes to start again.</summary>
    private static readonly TimeSpan s_aloneAfter = TimeSpan.FromSeconds(10);

    /// <summary>Until an agent that ended, and had this node's name, is forgotten.</summary>
    private static readonly TimeSpan s_nameIsFreeAfter = TimeSpan.FromSeconds(10);

    private readonly AgentOptions _options;
    private readonly TimeProvider _time;
    private readonly ILogger _log;
    private readonly FileStream _lock;
    private readonly string _identity;
    private readonly CoordinatorClient _coordinator;
    private readonly CoordinatorClient _archive;
    private readonly RankSupervisor _supervisor;
    private readonly Pulse _work = new();
    private readonly Pulse _news = new();
    private readonly CancellationTokenSource _end = new();
    private LogShipping? _logs;
    private RankEndpoint? _endpoint;
    private volatile bool _draining;

    /// <summary>A timestamp; 0: the coordinator answers.</summary>
    private long _awaySince;
    private long _composed;
    private long _heard;

    private Agent(AgentOptions options)
    {
        _options = options;
        _time = options.Time;
        _log = options.Logs.CreateLogger<Agent>();
        _coordinator = CoordinatorClient.At(options.Coordinator, options.Token, s_answerTakes);
        // Pieces of logs, and the wait for orders, may take longer than reports may.
        _archive = CoordinatorClient.At(options.Coordinator, options.Token);
        _lock = TakeLock(options.Home);
        _identity = Identity(_lock);
        _supervisor = new RankSupervisor(options, new AwakeClock(_time), _work, _news, _log);
    }

    /// <summary>
    /// Ends only badly: with a <see cref="CoordinatorException"/> when the coordinator refuses this agent (its token, or its version),
    /// whose message says what to do.
    /// </summary>
    public Task Completion { get; private set; } = Task.CompletedTask;

    /// <summary>Attaches to ranks that run already, and begins to report. Does not wait for the coordinator.</summary>
    /// <exception cref="ConfigException">The coordinator's address is none, or another agent serves this home.</exception>
    /// <exception cref="IOException">The home cannot be written.</exception>
    public static async Task<Agent> StartAsync(AgentOptions options, CancellationToken cancellationToken = default)
    {
        options.Home.Create();
        var agent = new Agent(options);
        try
        {
            AgentWatch.Announce(options.Home);
            agent._supervisor.Attach();
            agent._endpoint = await RankEndpoint.StartAsync(options.Home.AgentSocket, agent._supervisor, options.Logs, cancellationToken);
            agent._logs = options.ShipsLogs ? new LogShipping(options.Home, agent._archive, agent._supervisor, agent._time, agent._log) : null;
            agent.Completion = agent.RunAsync();
            return agent;
        }
        catch
        {
            await agent.DisposeAsync();
            throw;
        }
    }

    /// <summary>
    /// Tells the coordinator to take the ranks away, goes on obeying, and returns when none is left and the coordinator knows how they
    /// ended. Where none answers for a while the agent asks the ranks itself: they save, end, and are found to have been interrupted.
    /// After <paramref name="timeout"/> those that are left are killed.
    /// </summary>
    /// <returns>False when ranks had to be killed.</returns>
    public async Task<bool> DrainAsync(TimeSpan timeout, CancellationToken cancellationToken = default)
    {
        if (_supervisor.AnyAlive)
        {
            LogDraining(timeout.TotalSeconds);
        }
        long start = _time.GetTimestamp();
        _draining = true;
        _news.Beat();
        bool emptied = await UntilAsync(() => !_supervisor.AnyAlive || AsksItself(), timeout, cancellationToken);
        if (emptied && _supervisor.AnyAlive)
        {
            LogAlone();
            _supervisor.StopAll();
            emptied = await UntilAsync(() => !_supervisor.AnyAlive, timeout - _time.GetElapsedTime(start), cancellationToken);
        }
        if (!emptied)
        {
            string why = FormattableString.Invariant($"the node was drained, and the rank had not stopped after {timeout.TotalSeconds:0} s");
            LogDrainEnds(why);
            _supervisor.KillAll(why);
            await UntilAsync(() => !_supervisor.AnyAlive, s_farewellTakes, cancellationToken);
        }
        if (Interlocked.Read(ref _heard) == 0 && _supervisor.Report().IsEmpty)
        {
            // The coordinator knows nothing of this agent.
            return emptied;
        }
        // The report that is under way may not yet say that the last rank ended.
        long last = Interlocked.Read(ref _composed) + 1;
        _news.Beat();
        await UntilAsync(() => Interlocked.Read(ref _heard) >= last && _logs is null or { IsComplete: true }, s_farewellTakes, cancellationToken);
        return emptied;
    }

    /// <summary>Ends the agent. Its ranks go on.</summary>
    public async ValueTask DisposeAsync()
    {
        await _end.CancelAsync();
        await Completion.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (_endpoint is not null)
        {
            await _endpoint.DisposeAsync();
            File.Delete(_options.Home.AgentPid);
        }
        _supervisor.Dispose();
        _coordinator.Dispose();
        _archive.Dispose();
        _news.Dispose();
        _work.Dispose();
        _end.Dispose();
        await _lock.DisposeAsync();
    }

    private async Task RunAsync()
    {
        List<Task> tasks = [Task.Run(SuperviseAsync), Task.Run(ReportAsync), Task.Run(ListenAsync)];
        // Not among them: nothing ends because something could not be measured.
        _ = Task.Run(() => new SlotMeter(_supervisor, _time).RunAsync(_end.Token));
        if (_logs is not null)
        {
            tasks.Add(Task.Run(() => _logs.RunAsync(_end.Token)));
        }
        await await Task.WhenAny(tasks);
    }

    private async Task SuperviseAsync()
    {
        TimeSpan pause = s_busyLook;
        while (true)
        {
            // What doesn't die at once may hang in a driver for minutes.
            pause = _supervisor.Pass() ? (pause * 1.2 < s_look ? pause * 1.2 : s_look) : s_busyLook;
            await _work.WaitAsync(pause > s_busyLook ? pause : s_look, _end.Token);
        }
    }

    private async Task ReportAsync()
    {
        TimeSpan backoff = TimeSpan.Zero;
        long? namesake = null;
        while (true)
        {
            try
            {
                long number = Interlocked.Increment(ref _composed);
                NodeOrders orders = await _coordinator.ReportAsync(Report(), _end.Token);
                if (backoff > TimeSpan.Zero)
                {
                    LogBack();
                }
                backoff = TimeSpan.Zero;
                Interlocked.Exchange(ref _awaySince, 0);
                namesake = null;
                _supervisor.Obey(orders);
                Interlocked.Exchange(ref _heard, number);
            }
            catch (CoordinatorException error) when (error.Status is HttpStatusCode.Conflict && _time.GetElapsedTime(namesake ??= _time.GetTimestamp()) < s_nameIsFreeAfter)
            {
                if (backoff == TimeSpan.Zero)
                {
                    LogAway(error.Message, _supervisor.AnyAlive ? "ranks go on" : "trying again until it answers");
                }
                backoff = s_longestBackoff;
                await Task.Delay(backoff, _time, _end.Token);
                continue;
            }
            catch (CoordinatorException error) when (Refusal(error) is { } refusal)
            {
                LogRefused(refusal);
                throw new CoordinatorException(error.Status, refusal, error);
            }
            catch (CoordinatorException error)
            {
                if (backoff == TimeSpan.Zero)
                {
                    Interlocked.Exchange(ref _awaySince, _time.GetTimestamp());
                    LogAway(error.Message, _supervisor.AnyAlive ? "ranks go on" : "trying again until it answers");
                }
                backoff = backoff == TimeSpan.Zero ? s_shortestBackoff : backoff * 2 < s_longestBackoff ? backoff * 2 : s_longestBackoff;
                await Task.Delay(backoff, _time, _end.Token);
                continue;
            }
            await Task.Delay(s_newsWait, _time, _end.Token);
            await _news.WaitAsync(_options.Period - s_newsWait, _end.Token);
        }
    }

    /// <summary>Fetches new orders as soon as there are some, by reporting. What is missed comes with the next report.</summary>
    private async Task ListenAsync()
    {
        while (true)
        {
            try
            {
                await _archive.WaitForOrdersAsync(_options.Node, _end.Token);
                _news.Beat();
            }
            catch (CoordinatorException)
            {
                await Task.Delay(s_longestBackoff, _time, _end.Token);
            }
        }
    }

    private NodeReport Report() => new()
    {
        Node = _options.Node,
        Pool = _options.Pool,
        Host = _options.Host,
        Sequence = Environment.TickCount64,
        Slots = _options.Slots,
        Kind = _options.Kind,
        Draining = _draining,
        Ranks = _supervisor.Report(),
        Trouble = _logs?.Problem,
        Agent = _identity,
        Version = typeof(Agent).Assembly.GetName().Version!.ToString(3),
    };

    /// <summary>Null when it is no refusal for good.</summary>
    private string? Refusal(CoordinatorException error) => error.Status switch
    {
        HttpStatusCode.Conflict => $"the coordinator at {_options.Coordinator} refuses this agent: {error.Message}; end that one, or give this one another --name",
        HttpStatusCode.UpgradeRequired => $"the coordinator at {_options.Coordinator} refuses this agent: {error.Message}; "
            + $"install the coordinator's trainer version on this machine (the agent speaks contract {NodeReport.CurrentContract})",
        HttpStatusCode.Unauthorized or HttpStatusCode.Forbidden =>
            $"the coordinator at {_options.Coordinator} refuses this agent's token: {error.Message}; set TRAINER_TOKEN to one that workers may use",
        _ => null,
    };

    private bool AsksItself() => Interlocked.Read(ref _awaySince) is > 0 and var since && _time.GetElapsedTime(since) > s_aloneAfter;

    private async Task<bool> UntilAsync(Func<bool> holds, TimeSpan atMost, CancellationToken cancellationToken)
    {
        long start = _time.GetTimestamp();
        while (!holds())
        {
            if (_time.GetElapsedTime(start) >= atMost)
            {
                return false;
            }
            await Task.Delay(s_busyLook, _time, cancellationToken);
        }
        return true;
    }

    private static FileStream TakeLock(TrainerHome home)
    {
        try
        {
            return new FileStream(home.AgentLock, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException) when (File.Exists(home.AgentLock))
        {
            throw new ConfigException($"a worker agent already serves {home.Directory}; stop it, or set TRAINER_HOME to another folder");
        }
    }

    /// <summary>What the home's lock holds, which a copy of the home has too, and which start of which machine this is.</summary>
    private static string Identity(FileStream home)
    {
        byte[] held = new byte[32];
        string id = home.ReadAtLeast(held, held.Length, throwOnEndOfStream: false) == held.Length ? Encoding.ASCII.GetString(held) : "";
        if (!Guid.TryParseExact(id, "N", out _))
        {
            id = Guid.NewGuid().ToString("N");
            home.SetLength(0);
            home.Write(Encoding.ASCII.GetBytes(id));
            home.Flush();
        }
        return $"{id}-{File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim()}";
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Problem}; {Meanwhile}")]
    private partial void LogAway(string problem, string meanwhile);

    [LoggerMessage(Level = LogLevel.Information, Message = "the coordinator is back")]
    private partial void LogBack();

    [LoggerMessage(Level = LogLevel.Error, Message = "{Problem}")]
    private partial void LogRefused(string problem);

    [LoggerMessage(Level = LogLevel.Information, Message = "draining: ranks have {Seconds:0} s to stop")]
    private partial void LogDraining(double seconds);

    [LoggerMessage(Level = LogLevel.Warning, Message = "no coordinator asks the ranks to stop, so this agent does: they save a checkpoint, then end")]
    private partial void LogAlone();

    [LoggerMessage(Level = LogLevel.Warning, Message = "killing what is left: {Why}")]
    private partial void LogDrainEnds(string why);
}
