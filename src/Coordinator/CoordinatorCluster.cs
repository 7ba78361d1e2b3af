using System.Data.Common;
using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>Several coordinators that are one: they share a database, and grains live on any of them.</summary>
public sealed record CoordinatorCluster
{
    private const int DefaultPort = 11111;

    /// <summary>Connection string of the PostgreSQL database with Orleans' tables.</summary>
    public required string Database { get; init; }

    /// <summary>The same for all of its coordinators; several clusters may share a database.</summary>
    public required string Name { get; init; }

    /// <summary>Where the other coordinators reach this one. Whoever gets through to it may do everything.</summary>
    public required IPEndPoint Silo { get; init; }

    /// <summary>With its key, and the same for all coordinators: nobody without it gets through.</summary>
    public X509Certificate2? Certificate { get; init; }

    /// <returns>Null: no database is named, so the coordinator is alone.</returns>
    /// <exception cref="ConfigException">A value or combination is wrong.</exception>
    public static CoordinatorCluster? Create(string? database, string? name, string? silo, string? certificate, string? key)
    {
        if (string.IsNullOrEmpty(database))
        {
            return name is null && silo is null && certificate is null && key is null
                ? null
                : throw new ConfigException("--cluster, --silo, --silo-certificate and --silo-key need --database, or TRAINER_DATABASE: coordinators find each other in a database");
        }
        try
        {
            _ = new DbConnectionStringBuilder { ConnectionString = database };
        }
        catch (ArgumentException)
        {
            throw new ConfigException("--database, or TRAINER_DATABASE, is no connection string; \"Host=...;Database=...;Username=...;Password=...\" is expected");
        }
        IPEndPoint endpoint = Parse(silo ?? $"127.0.0.1:{DefaultPort}");
        if (certificate is null && !IPAddress.IsLoopback(endpoint.Address))
        {
            throw new ConfigException($"--silo {silo}: an address that other machines reach needs --silo-certificate FILE and --silo-key FILE, the same for all coordinators");
        }
        try
        {
            return new CoordinatorCluster
            {
                Database = database,
                Name = name ?? "trainer",
                Silo = endpoint,
                Certificate = certificate is null ? null : X509Certificate2.CreateFromPemFile(certificate, key),
            };
        }
        catch (Exception error) when (error is CryptographicException or IOException)
        {
            throw new ConfigException($"{certificate}: {error.Message}; PEM files of the certificate and its key are expected");
        }
    }

    private static IPEndPoint Parse(string silo) =>
        IPEndPoint.TryParse(silo, out IPEndPoint? endpoint) && !endpoint.Address.Equals(IPAddress.Any) && !endpoint.Address.Equals(IPAddress.IPv6Any)
            ? new IPEndPoint(endpoint.Address, endpoint.Port == 0 ? DefaultPort : endpoint.Port)
            : throw new ConfigException($"--silo {silo}: where the other coordinators reach this one is expected, such as 10.0.0.5:{DefaultPort}");
}
