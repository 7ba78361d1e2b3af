using Microsoft.Extensions.DependencyInjection;
using Orleans.Embedded;
using Orleans.Runtime;

namespace Orleans.Runtime
{
    public interface IAddressable;

    /// <summary>Type and key of a grain.</summary>
    public readonly record struct GrainId(string Type, string Key)
    {
        public static GrainId Create(string type, string key) => new(type, key);

        public override string ToString() => $"{Type}/{Key}";
    }

    /// <summary>What the engine knows of one activation.</summary>
    public interface IGrainContext
    {
        GrainId GrainId { get; }
        object? GrainInstance { get; }
        IServiceProvider ActivationServices { get; }
    }
}

namespace Orleans
{
    public interface IGrain : IAddressable;

    public interface IGrainWithStringKey : IGrain;

    /// <summary>Stands between callers and grains.</summary>
    public interface IIncomingGrainCallFilter
    {
        Task Invoke(IIncomingGrainCallContext context);
    }

    /// <summary>A call that has reached its grain.</summary>
    public interface IIncomingGrainCallContext
    {
        object Grain { get; }
        string MethodName { get; }
        GrainId TargetId { get; }

        /// <summary>The next filter, or the grain itself.</summary>
        Task Invoke();
    }

    public interface IGrainBase
    {
        IGrainContext GrainContext { get; }

        Task OnActivateAsync(CancellationToken token) => Task.CompletedTask;

        Task OnDeactivateAsync(DeactivationReason reason, CancellationToken token) => Task.CompletedTask;
    }

    public interface IGrainFactory
    {
        TGrainInterface GetGrain<TGrainInterface>(string primaryKey, string? grainClassNamePrefix = null)
            where TGrainInterface : IGrainWithStringKey;
    }

    public enum DeactivationReasonCode
    {
        None = 0,
        ActivationIdle = 4,
        ShuttingDown = 1,
        ActivationFailed = 2,
        ApplicationRequested = 10,
    }

    public readonly struct DeactivationReason(DeactivationReasonCode code, string text)
    {
        public DeactivationReasonCode ReasonCode { get; } = code;
        public string Description { get; } = text;
    }

    /// <summary>Base of grain classes. One turn of an activation runs at a time; awaits come back to the activation.</summary>
    public abstract class Grain : IGrainBase, IAddressable
    {
        protected Grain() => GrainContext = Activation.UnderConstruction
            ?? throw new InvalidOperationException("grains are made by the silo; ask IGrainFactory for one");

        public IGrainContext GrainContext { get; }

        protected internal IGrainFactory GrainFactory => ServiceProvider.GetRequiredService<IGrainFactory>();

        protected internal IServiceProvider ServiceProvider => GrainContext.ActivationServices;

        public virtual Task OnActivateAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public virtual Task OnDeactivateAsync(DeactivationReason reason, CancellationToken cancellationToken) => Task.CompletedTask;

        /// <summary>The activation ends after the current call; the next call makes a new one.</summary>
        protected void DeactivateOnIdle() =>
            ((Activation)GrainContext).Deactivate(new DeactivationReason(DeactivationReasonCode.ApplicationRequested, "DeactivateOnIdle was called"));
    }

    public static class GrainExtensions
    {
        public static string GetPrimaryKeyString(this IAddressable grain) => grain switch
        {
            IGrainBase instance => instance.GrainContext.GrainId.Key,
            GrainProxy proxy => proxy.Id.Key,
            _ => throw new ArgumentException("this is neither a grain nor a reference to one", nameof(grain)),
        };
    }
}
