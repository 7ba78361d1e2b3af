using System.Globalization;
using System.Text.Json;
using Orleans.Runtime;

namespace Orleans.Embedded;

/// <summary>One named state of one activation, stored as JSON.</summary>
internal sealed class PersistentState<T>(SqliteStore store, GrainId id, string name) : IPersistentState<T>
{
    private long _version;

    public T State { get; set; } = Activator.CreateInstance<T>();
    public string? Etag => _version == 0 ? null : _version.ToString(CultureInfo.InvariantCulture);
    public bool RecordExists => _version > 0;

    public async Task ReadStateAsync()
    {
        (string Json, long Version)? row = await store.ReadAsync(id, name);
        State = row is null ? Activator.CreateInstance<T>() : JsonSerializer.Deserialize<T>(row.Value.Json)!;
        _version = row?.Version ?? 0;
    }

    public async Task WriteStateAsync() => _version = await store.WriteAsync(id, name, JsonSerializer.Serialize(State), _version);

    public async Task ClearStateAsync()
    {
        await store.ClearAsync(id, name, _version);
        State = Activator.CreateInstance<T>();
        _version = 0;
    }
}
