using System.Data.Common;
using System.Net;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Orleans;
using Orleans.Configuration;
using Orleans.Dashboard;
using Orleans.Embedded;
using Orleans.Hosting;
using Orleans.Providers;
using Orleans.Runtime.Hosting;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>Microsoft Orleans: one of the two files that know which engine runs the grains.</summary>
internal static class Silo
{
    private const string Invariant = "Npgsql", PoolSize = "Maximum Pool Size";

    /// <summary>Of one coordinator: PostgreSQL lets in 100 connections in all unless it is told otherwise, and Npgsql would take as many.</summary>
    private const int MostConnections = 20;

    /// <param name="cluster">Null: this coordinator is alone and keeps its state in its home.</param>
    public static void AddSilo(this IHostApplicationBuilder builder, TrainerHome home, CoordinatorCluster? cluster)
    {
        // They advise another garbage collector, and warn of time before they began.
        builder.Logging.AddFilter("Orleans.Runtime.Silo", LogLevel.Error);
        builder.Logging.AddFilter("Orleans.Runtime.Watchdog", LogLevel.Error);
        builder.UseOrleans(silo =>
        {
            if (cluster is null)
            {
                BeAlone(silo, home);
            }
            else
            {
                Join(silo, cluster);
            }
            silo.AddDashboard();
        });
    }

    /// <summary>Where the engine shows its grains itself.</summary>
    public const string? Page = "/orleans/";

    /// <summary>Orleans' dashboard; endpoints without an <see cref="Operation"/> are for admins.</summary>
    public static void MapSilo(this WebApplication app) => app.MapOrleansDashboard("/orleans");

    private static void BeAlone(ISiloBuilder silo, TrainerHome home)
    {
        silo.UseLocalhostClustering(gatewayPort: 0);
        // The port is a name only: nobody else is in this cluster, and other users of the machine have no business in it.
        silo.Configure<EndpointOptions>(endpoint => endpoint.SiloListeningEndpoint = new IPEndPoint(IPAddress.Loopback, 0));
        silo.Configure<SiloConnectionOptions>(options => options.ConfigureSiloInboundConnection(inbound => inbound.Run(connection =>
        {
            connection.Abort();
            return Task.CompletedTask;
        })));
        silo.Services.AddSingleton(services => new SqliteStore(home.Database, services.GetRequiredService<ILogger<SqliteStore>>()));
        silo.Services.AddGrainStorage(ProviderConstants.DEFAULT_STORAGE_PROVIDER_NAME, (services, _) => new SqliteGrainStorage(services.GetRequiredService<SqliteStore>()));
        silo.AddReminders();
        silo.Services.AddSingleton<IReminderTable, SqliteReminders>();
    }

    private static void Join(ISiloBuilder silo, CoordinatorCluster cluster)
    {
        var connection = new DbConnectionStringBuilder { ConnectionString = cluster.Database };
        if (!connection.ContainsKey(PoolSize) && !connection.ContainsKey("MaxPoolSize"))
        {
            connection.Add(PoolSize, MostConnections);
        }
        string database = connection.ConnectionString;
        silo.Configure<ClusterOptions>(options => options.ClusterId = options.ServiceId = cluster.Name);
        silo.Configure<EndpointOptions>(endpoint =>
        {
            endpoint.AdvertisedIPAddress = cluster.Silo.Address;
            endpoint.SiloPort = cluster.Silo.Port;
            endpoint.GatewayPort = 0;
        });
        if (cluster.Certificate is { } own)
        {
            // All coordinators have the same certificate: who holds its key is one of them.
            silo.UseTls(own, tls =>
            {
                tls.ClientCertificateMode = Orleans.Connections.Security.RemoteCertificateMode.RequireCertificate;
                tls.RemoteCertificateValidation = (theirs, _, _) => theirs.RawDataMemory.Span.SequenceEqual(own.RawDataMemory.Span);
                tls.OnAuthenticateAsClient = (_, client) => client.TargetHost = cluster.Name;
            });
        }
        silo.UseAdoNetClustering(options => (options.Invariant, options.ConnectionString) = (Invariant, database));
        silo.AddAdoNetGrainStorageAsDefault(options =>
            (options.Invariant, options.ConnectionString, options.GrainStorageSerializer) = (Invariant, database, new StateJson()));
        silo.UseAdoNetReminderService(options => (options.Invariant, options.ConnectionString) = (Invariant, database));
    }
}
