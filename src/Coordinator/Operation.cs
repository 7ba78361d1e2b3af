using System.Text.Json.Serialization.Metadata;

namespace Trainer.Coordinator;

/// <summary>What an endpoint does and who may ask for it: <see cref="Access"/> enforces it, <see cref="OpenApi"/> tells it.</summary>
/// <param name="Summary">One line.</param>
internal sealed record Operation(string Summary)
{
    /// <summary>Anybody, without a token.</summary>
    public bool IsOpen { get; init; }

    /// <summary>A browser that is not signed in is led to where it can be.</summary>
    public bool IsPage { get; init; }

    /// <summary>Besides the admin, who may do everything.</summary>
    public IReadOnlyList<Role> Roles { get; init; } = [];

    /// <summary>JSON of the body; null: there is none.</summary>
    public JsonTypeInfo? Request { get; init; }

    /// <summary>JSON of the answer; null: see <see cref="ContentType"/>.</summary>
    public JsonTypeInfo? Answer { get; init; }

    /// <summary>Of an answer that is JSON but not written here.</summary>
    public Type? Schema { get; init; }

    /// <summary>Of an answer that is no JSON.</summary>
    public string? ContentType { get; init; }

    /// <summary>The body is plain bytes.</summary>
    public bool TakesBytes { get; init; }

    /// <summary>What may follow the question mark, each with a line about it.</summary>
    public IReadOnlyDictionary<string, string> Query { get; init; } = new Dictionary<string, string>();

    public int Status { get; init; } = 200;
}
