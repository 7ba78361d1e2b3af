namespace Trainer.Contracts;

/// <summary>A token in the coordinator's list.</summary>
public sealed record AccessEntry
{
    /// <summary>SHA-256 of the token, hexadecimal.</summary>
    public required string Sha256 { get; init; }

    /// <summary>user, worker or admin.</summary>
    public required string Role { get; init; }

    /// <summary>Whose jobs a user sees.</summary>
    public string? Project { get; init; }

    /// <summary>For the person who keeps the list.</summary>
    public string? Note { get; init; }
}
