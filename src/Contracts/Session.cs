using Orleans;

namespace Trainer.Contracts;

/// <summary>What a person shows to the dashboard: a token, or a code that somebody who may do as much got for it.</summary>
public sealed record SessionRequest
{
    public string? Token { get; init; }
    public string? Code { get; init; }
}

/// <summary>Who is signed in.</summary>
public sealed record SessionView
{
    public int SchemaVersion { get; init; } = 1;

    /// <summary>user, or admin.</summary>
    public required string Role { get; init; }

    /// <summary>Whose jobs a user sees; null: all.</summary>
    public string? Project { get; init; }

    /// <summary>Null: the caller has no session.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    /// <summary>Version of the coordinator.</summary>
    public required string Version { get; init; }

    /// <summary>Where the engine shows its grains itself; null: nowhere, or not to this caller.</summary>
    public string? EnginePage { get; init; }
}

/// <summary>Signs in once, as whoever asked for it.</summary>
public sealed record SignInCode
{
    public required string Code { get; init; }
    public required DateTimeOffset ExpiresAt { get; init; }
}

/// <summary>Where the owner's browser is to reach the coordinator on its machine.</summary>
public sealed record DashboardRequest
{
    /// <summary>0: the one of before, else any that is free.</summary>
    public int Port { get; init; }
}

public sealed record DashboardView
{
    /// <summary>Such as http://127.0.0.1:7410.</summary>
    public required string Address { get; init; }
}

/// <summary>A session of the dashboard, or a code that opens one. The secret itself is nowhere kept.</summary>
[GenerateSerializer, Immutable, Alias("trainer.session-entry")]
public sealed record SessionEntry
{
    /// <summary>Of the secret.</summary>
    [Id(0)] public required string Sha256 { get; init; }

    /// <summary>user, or admin.</summary>
    [Id(1)] public required string Role { get; init; }

    [Id(2)] public string? Project { get; init; }

    /// <summary>Of the token that it was opened with: without that one in the list it is over. Null: by the owner of the coordinator.</summary>
    [Id(3)] public string? Token { get; init; }

    [Id(4)] public required DateTimeOffset ExpiresAt { get; init; }
}
