using System.Data.Common;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Data.Sqlite;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Orleans;
using Orleans.Runtime;
using Trainer.Contracts;
using Trainer.Coordinator.Telemetry;

namespace Trainer.Coordinator;

/// <summary>One coordinator on one <see cref="TrainerHome"/>: owns the lock, the database and the socket as long as it lives.</summary>
public sealed class CoordinatorHost : IAsyncDisposable
{
    private const long MaxBody = 2 << 20;
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    /// <summary>SQLITE_CORRUPT and SQLITE_NOTADB.</summary>
    private const int Corrupt = 11, NoDatabase = 26;

    private static readonly TimeSpan s_readyTakes = TimeSpan.FromSeconds(5);

    /// <summary>All jobs are looked at so often for those who watch lists; jobs on other coordinators tell nothing here.</summary>
    private static readonly TimeSpan s_sweep = TimeSpan.FromMinutes(1), s_clusterSweep = TimeSpan.FromSeconds(3);

    private readonly WebApplication _app;
    private readonly FileStream _lock;
    private readonly TrainerHome _home;

    private CoordinatorHost(TrainerHome home, WebApplication app, FileStream held)
    {
        _home = home;
        _app = app;
        _lock = held;
    }

    /// <summary>Starts to answer on the socket.</summary>
    /// <exception cref="CoordinatorRunningException">Another process serves this home.</exception>
    /// <exception cref="ConfigException">
    /// Nothing can be written in the home, its database cannot be used, the cluster cannot be joined, or the engine of this build has none.
    /// </exception>
    public static async Task<CoordinatorHost> StartAsync(TrainerHome home, CoordinatorOptions options,
        CoordinatorEndpoints? endpoints = null, CoordinatorCluster? cluster = null, CancellationToken cancellationToken = default)
    {
        home.Create();
        FileStream held = TakeLock(home);
        try
        {
            // A socket file without the lock is left from a killed coordinator.
            File.Delete(home.Socket);
            if (cluster is null && !File.Exists(home.Database))
            {
                // Its journals take this over: whose home is open to others keeps this to itself.
                new FileStream(home.Database, new FileStreamOptions { Mode = FileMode.OpenOrCreate, Access = FileAccess.Write, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite }).Dispose();
            }
            await File.WriteAllTextAsync(home.Pid, Environment.ProcessId.ToString(CultureInfo.InvariantCulture), cancellationToken);
            WebApplication app = Build(home, options, endpoints ?? CoordinatorEndpoints.SocketOnly, cluster);
            await app.StartAsync(cancellationToken);
            File.SetUnixFileMode(home.Socket, OwnerOnly);
            await app.Services.GetRequiredService<LocalAddress>().RestoreAsync(cancellationToken);
            return new CoordinatorHost(home, app, held);
        }
        catch (Exception error)
        {
            File.Delete(home.Pid);
            await held.DisposeAsync();
            if (error.GetBaseException() is SqliteException database)
            {
                throw new ConfigException(Describe(database, home));
            }
            if (error is SocketException refused)
            {
                IEnumerable<object?> places = [.. endpoints?.Addresses ?? [], cluster?.Silo];
                throw new ConfigException($"this machine cannot listen on {string.Join(" or ", places.OfType<object>())}: {refused.Message}; see --listen and --silo");
            }
            if (cluster is not null && error is DbException or OrleansException)
            {
                throw new ConfigException($"the cluster cannot be joined: {error.Message.Split('\n')[0]}; its database must answer and hold Orleans' tables, "
                    + "and after the death of all its coordinators one must start where it was (--silo)");
            }
            throw;
        }
    }

    /// <summary>For what else runs in this process.</summary>
    public ILoggerFactory Logs => _app.Services.GetRequiredService<ILoggerFactory>();

    internal IGrainFactory Grains => _app.Services.GetRequiredService<IGrainFactory>();

    /// <summary>Jobs that clients follow at the moment.</summary>
    internal JobWatches Watches => _app.Services.GetRequiredService<JobWatches>();

    /// <summary>Returns after SIGTERM, Ctrl-C or a stop request. Ranks go on.</summary>
    public Task WaitForShutdownAsync(CancellationToken cancellationToken = default) => _app.WaitForShutdownAsync(cancellationToken);

    public async ValueTask DisposeAsync()
    {
        await _app.StopAsync();
        await _app.DisposeAsync();
        File.Delete(_home.Pid);
        await _lock.DisposeAsync();
    }

    private static WebApplication Build(TrainerHome home, CoordinatorOptions options, CoordinatorEndpoints endpoints, CoordinatorCluster? cluster)
    {
        // Settings of whatever folder this was started in are none of ours, and nobody watches that folder and all below it.
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder(new WebApplicationOptions { ContentRootPath = AppContext.BaseDirectory, Args = ["--hostBuilder:reloadConfigOnChange=false"] });
        const string Time = "yyyy-MM-ddTHH:mm:ss.fffZ ";
        if (options.JsonLog)
        {
            builder.Logging.AddJsonConsole(console => (console.UseUtcTimestamp, console.TimestampFormat) = (true, Time.TrimEnd()));
        }
        else
        {
            builder.Logging.AddSimpleConsole(console => (console.SingleLine, console.UseUtcTimestamp, console.TimestampFormat) = (true, true, Time));
        }
        builder.Logging.AddFilter("Microsoft", LogLevel.Warning);
        // Whoever starts the host says in a sentence why it does not start.
        builder.Logging.AddFilter("Microsoft.Extensions.Hosting.Internal.Host", LogLevel.None);
        builder.Logging.AddFilter("Orleans", LogLevel.Warning);
        builder.Logging.AddFilter("Polly", LogLevel.Warning);
        IConfigurationRoot listening = LocalAddress.NewListening();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.Limits.MaxRequestBodySize = MaxBody;
            kestrel.Limits.RequestHeadersTimeout = TimeSpan.FromSeconds(10);
            kestrel.ListenUnixSocket(home.Socket);
            kestrel.Configure(listening, reloadOnChange: true);
            foreach (Uri address in endpoints.Addresses)
            {
                kestrel.Listen(IPEndPoint.Parse(address.Host is "localhost" ? $"127.0.0.1:{address.Port}" : $"{address.Host}:{address.Port}"), listen =>
                {
                    if (address.Scheme == Uri.UriSchemeHttps)
                    {
                        listen.UseHttps(endpoints.Certificate!);
                    }
                });
            }
        });
        builder.Services.AddSingleton(home);
        builder.Services.AddSingleton(options);
        builder.Services.AddMetrics();
        builder.Services.AddSingleton<LiveState>();
        builder.Services.AddSingleton<MetricsStore>();
        builder.Services.AddSingleton<CoordinatorMetrics>();
        builder.Services.AddSingleton<JobTelemetry>();
        builder.Services.AddSingleton<MetricsApi>();
        builder.Services.AddSingleton<IIncomingGrainCallFilter, GrainCallMetrics>();
        builder.Services.AddSingleton<GrainStatistics>();
        builder.Services.AddHostedService<OtlpExport>();
        builder.Services.AddSingleton(endpoints.Access);
        builder.Services.AddSingleton(new LocalAddress(home, listening));
        builder.Services.AddSingleton<Sessions>();
        builder.Services.AddSingleton<SessionApi>();
        builder.Services.AddSingleton(services => new JobRows(services.GetRequiredService<IGrainFactory>(), services.GetRequiredService<TimeProvider>(),
            services.GetRequiredService<ILogger<JobRows>>(), cluster is null ? s_sweep : s_clusterSweep));
        builder.Services.AddSingleton<NodeChanges>();
        builder.Services.AddSingleton<RankLogs>();
        builder.Services.AddSingleton<LogArchive>();
        builder.Services.AddSingleton<FileGrowth>();
        builder.Services.AddSingleton<JobWatches>();
        builder.Services.AddSingleton<JobApi>();
        builder.Services.AddSingleton<CheckpointApi>();
        builder.Services.AddSingleton<StreamApi>();
        builder.Services.AddSingleton<NodeApi>();
        builder.Services.AddSingleton<PoolApi>();
        builder.Services.AddSingleton<SeriesApi>();
        builder.Services.AddSingleton<GrainApi>();
        builder.Services.AddSingleton<OpenApi>();
        builder.AddSilo(home, cluster);
        builder.Services.AddHostedService<WakeUp>();
        builder.Services.AddHostedService(services => services.GetRequiredService<LogArchive>());
        WebApplication app = builder.Build();
        // From the first measurement on.
        app.Services.GetRequiredService<MetricsStore>();
        app.Services.GetRequiredService<GrainStatistics>();
        app.UseSafeHeaders();
        app.UseApiErrors(app.Logger);
        endpoints.Access.Guard(app);
        app.UseNotFound();
        app.MapGet("/health", () => "alive").WithMetadata(new Operation("The process answers.") { IsOpen = true, ContentType = "text/plain" });
        app.MapGet("/ready", ReadyAsync).WithMetadata(new Operation("Grains and their storage answer.") { IsOpen = true, ContentType = "text/plain" });
        app.MapGet("/openapi.json", app.Services.GetRequiredService<OpenApi>().AnswerAsync)
            .WithMetadata(new Operation("This document.") { IsOpen = true, ContentType = "application/json" });
        app.Services.GetRequiredService<JobApi>().Map(app);
        app.Services.GetRequiredService<CheckpointApi>().Map(app);
        app.Services.GetRequiredService<StreamApi>().Map(app);
        app.Services.GetRequiredService<NodeApi>().Map(app);
        app.Services.GetRequiredService<PoolApi>().Map(app);
        app.Services.GetRequiredService<SeriesApi>().Map(app);
        app.Services.GetRequiredService<GrainApi>().Map(app);
        app.Services.GetRequiredService<SessionApi>().Map(app);
        Dashboard.Map(app);
        app.Services.GetRequiredService<MetricsApi>().Map(app);
        app.MapSilo();
        return app;
    }

    private static async Task ReadyAsync(HttpContext context)
    {
        await context.RequestServices.GetRequiredService<IGrainFactory>().GetGrain<IPoolIndexGrain>(IPoolIndexGrain.Key).List().WaitAsync(s_readyTakes, context.RequestAborted);
        await context.Response.WriteAsync("ready", context.RequestAborted);
    }

    private static string Describe(SqliteException error, TrainerHome home) => error.SqliteErrorCode is Corrupt or NoDatabase
        ? $"{home.Database}: the coordinator's database is damaged ({error.Message.TrimEnd('.')}); move it away with its -wal and -shm files and start again. "
            + $"The list of jobs, their history, quotas and queues are lost with it, and ranks that run are ended; checkpoints, metrics and models stay in {home.Jobs} "
            + "and in the stores, and a job that is submitted again goes on from them with checkpoint.resume_from"
        : $"{home.Database}: the coordinator's database cannot be used ({error.Message.TrimEnd('.')}); it and its folder must be yours to write, on a disk with room";

    private static FileStream TakeLock(TrainerHome home)
    {
        try
        {
            return new FileStream(home.Lock, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException)
        {
            throw new CoordinatorRunningException(home);
        }
    }
}

public sealed class CoordinatorRunningException(TrainerHome home)
    : Exception($"a coordinator already serves {home.Directory}; stop it with \"trainer stop\", or set TRAINER_HOME to another folder");
