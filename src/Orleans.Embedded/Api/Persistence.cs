namespace Orleans.Core
{
    public interface IStorage
    {
        /// <summary>Version of what was last read or written; null when nothing is stored.</summary>
        string? Etag { get; }

        bool RecordExists { get; }

        Task ReadStateAsync();
        Task WriteStateAsync();
        Task ClearStateAsync();
    }

    public interface IStorage<TState> : IStorage
    {
        TState State { get; set; }
    }
}

namespace Orleans.Runtime
{
    public interface IPersistentState<TState> : Core.IStorage<TState>;

    /// <summary>Injects named state into a grain's constructor; it is read before OnActivateAsync.</summary>
    [AttributeUsage(AttributeTargets.Parameter)]
    public class PersistentStateAttribute(string stateName, string? storageName = null) : Attribute
    {
        public string StateName { get; } = stateName;
        public string? StorageName { get; } = storageName;
    }
}

namespace Orleans.Runtime
{
    /// <summary>The engine could not carry out a call.</summary>
    public class OrleansException(string message) : Exception(message);
}

namespace Orleans.Storage
{
    /// <summary>Somebody else wrote the state since it was read. The activation is dropped and reads again.</summary>
    public class InconsistentStateException(string message, string storedEtag, string currentEtag) : Runtime.OrleansException(message)
    {
        public string StoredEtag { get; } = storedEtag;
        public string CurrentEtag { get; } = currentEtag;
    }
}
