using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Orleans;
using Orleans.Embedded;
using Orleans.Hosting;

namespace Orleans.Hosting
{
    public interface ISiloBuilder
    {
        IServiceCollection Services { get; }
        IConfiguration Configuration { get; }
    }
}

namespace Microsoft.Extensions.Hosting
{
    public static class GenericHostExtensions
    {
        /// <summary>Runs a silo in this host.</summary>
        public static IHostApplicationBuilder UseOrleans(this IHostApplicationBuilder hostAppBuilder, Action<ISiloBuilder> configureDelegate)
        {
            hostAppBuilder.Services.TryAddSingleton(TimeProvider.System);
            hostAppBuilder.Services.AddOptions<EmbeddedSiloOptions>()
                .Validate(options => options.DatabasePath.Length > 0, "the embedded engine needs UseEmbeddedStorage(path)")
                .ValidateOnStart();
            hostAppBuilder.Services.TryAddSingleton<Silo>();
            hostAppBuilder.Services.TryAddSingleton<IGrainFactory>(services => services.GetRequiredService<Silo>());
            hostAppBuilder.Services.AddHostedService(services => services.GetRequiredService<Silo>());
            configureDelegate(new SiloBuilder(hostAppBuilder.Services, hostAppBuilder.Configuration));
            return hostAppBuilder;
        }

        private sealed record SiloBuilder(IServiceCollection Services, IConfiguration Configuration) : ISiloBuilder;
    }
}

namespace Orleans.Embedded
{
    public sealed class EmbeddedSiloOptions
    {
        /// <summary>SQLite file of grain states and reminders.</summary>
        public string DatabasePath { get; set; } = "";

        /// <summary>How long a caller waits for a reply.</summary>
        public TimeSpan ResponseTimeout { get; set; } = TimeSpan.FromSeconds(30);

        /// <summary>Activations that nobody called for so long are collected.</summary>
        public TimeSpan CollectionAge { get; set; } = TimeSpan.FromMinutes(15);
    }

    public static class EmbeddedSiloBuilderExtensions
    {
        /// <summary>Keeps states and reminders in one SQLite file. This engine's own call: hosting code only, never grains.</summary>
        public static ISiloBuilder UseEmbeddedStorage(this ISiloBuilder builder, string path, Action<EmbeddedSiloOptions>? configure = null)
        {
            builder.Services.Configure<EmbeddedSiloOptions>(options =>
            {
                options.DatabasePath = path;
                configure?.Invoke(options);
            });
            return builder;
        }
    }
}
