using System.Globalization;
using System.Text.Json;
using Orleans;
using Orleans.Embedded;
using Orleans.Runtime;
using Orleans.Storage;

namespace Trainer.Coordinator;

/// <summary>Grain states in the coordinator's SQLite file, as the embedded engine stores them: the ETag is the row's version.</summary>
internal sealed class SqliteGrainStorage(SqliteStore store) : IGrainStorage
{
    public async Task ReadStateAsync<T>(string stateName, GrainId grainId, IGrainState<T> grainState)
    {
        (string Json, long Version)? row = await store.ReadAsync(grainId, stateName);
        Set(grainState, row is null ? Activator.CreateInstance<T>() : JsonSerializer.Deserialize<T>(row.Value.Json)!, row?.Version ?? 0);
    }

    public async Task WriteStateAsync<T>(string stateName, GrainId grainId, IGrainState<T> grainState) =>
        Set(grainState, grainState.State!, await store.WriteAsync(grainId, stateName, JsonSerializer.Serialize(grainState.State), Version(grainState)));

    public async Task ClearStateAsync<T>(string stateName, GrainId grainId, IGrainState<T> grainState)
    {
        await store.ClearAsync(grainId, stateName, Version(grainState));
        Set(grainState, Activator.CreateInstance<T>(), 0);
    }

    private static long Version<T>(IGrainState<T> grainState) =>
        grainState.ETag is null ? 0 : long.Parse(grainState.ETag, CultureInfo.InvariantCulture);

    private static void Set<T>(IGrainState<T> grainState, T state, long version)
    {
        grainState.State = state;
        grainState.ETag = version == 0 ? null : version.ToString(CultureInfo.InvariantCulture);
        grainState.RecordExists = version > 0;
    }
}

/// <summary>States in other databases are the same JSON.</summary>
internal sealed class StateJson : IGrainStorageSerializer
{
    public BinaryData Serialize<T>(T? input) => new(JsonSerializer.SerializeToUtf8Bytes(input));

    public T? Deserialize<T>(BinaryData input) => JsonSerializer.Deserialize<T>(input.ToMemory().Span);
}
