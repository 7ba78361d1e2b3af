using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.Hosting;
using Orleans.Embedded;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>The embedded engine: one of the two files that know which engine runs the grains.</summary>
internal static class Silo
{
    /// <exception cref="ConfigException">A cluster is asked for.</exception>
    public static void AddSilo(this IHostApplicationBuilder builder, TrainerHome home, CoordinatorCluster? cluster)
    {
        if (cluster is not null)
        {
            throw new ConfigException("--database needs the Orleans packages, and this build runs grains with the embedded engine, which is alone on its machine; "
                + "build with ORLEANS_ENGINE=packages on a feed that has them");
        }
        builder.UseOrleans(silo => silo.UseEmbeddedStorage(home.Database));
    }

    /// <summary>Where the engine shows its grains itself.</summary>
    public const string? Page = null;

    /// <summary>It shows nothing of its own.</summary>
    public static void MapSilo(this WebApplication app)
    {
    }
}
