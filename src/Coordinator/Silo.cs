using Microsoft.Extensions.Hosting;
using Orleans.Embedded;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>The embedded engine: the one file that knows which engine runs the grains.</summary>
internal static class Silo
{
    public static void AddSilo(this IHostApplicationBuilder builder, TrainerHome home) =>
        builder.UseOrleans(silo => silo.UseEmbeddedStorage(home.Database));
}
