using System.Text.Json;

namespace Trainer.Contracts;

/// <summary>A token in the coordinator's list.</summary>
public sealed record AccessEntry
{
    /// <summary>SHA-256 of the token, hexadecimal.</summary>
    public required string Sha256 { get; init; }

    /// <summary>user, worker, monitor or admin.</summary>
    public required string Role { get; init; }

    /// <summary>Whose jobs a user sees.</summary>
    public string? Project { get; init; }

    /// <summary>For the person who keeps the list.</summary>
    public string? Note { get; init; }

    /// <param name="path">JSON: [{"sha256": "...", "role": "user", "project": "default"}], as "trainer token" writes it.</param>
    /// <exception cref="ConfigException">The file is no such list.</exception>
    public static AccessEntry[] ReadList(string path)
    {
        AccessEntry?[] entries;
        try
        {
            using FileStream file = File.OpenRead(path);
            entries = JsonSerializer.Deserialize(file, ContractsJson.Default.AccessEntryArray) ?? [];
        }
        catch (JsonException error)
        {
            string where = error.LineNumber is { } line ? $" (line {line + 1})" : "";
            throw new ConfigException($"{path}: not a list of tokens{where}; \"trainer token\" writes one");
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new ConfigException($"{path}: not a list of tokens ({error.Message}); \"trainer token\" writes one");
        }
        var seen = new HashSet<string>(StringComparer.OrdinalIgnoreCase);
        for (int i = 0; i < entries.Length; i++)
        {
            if (Problem(entries[i]) is { } problem)
            {
                throw new ConfigException($"{path}: entry {i + 1}: {problem}; \"trainer token\" writes such a list");
            }
            if (!seen.Add(entries[i]!.Sha256))
            {
                throw new ConfigException($"{path}: entry {i + 1}: an entry above has the same sha256; remove one");
            }
        }
        return entries!;
    }

    private static string? Problem(AccessEntry? entry) => entry switch
    {
        null => "null is no token",
        { Role: not ("user" or "worker" or "monitor" or "admin") } => $"role {PlainText.Quote(entry.Role)}: user, worker, monitor or admin is expected",
        { Role: "user" } when !JobId.TryParse(entry.Project, out _) => "a token of role user needs a project, named like a job",
        _ when entry.Sha256.Length != 64 || !entry.Sha256.All(char.IsAsciiHexDigit) => "sha256 is not the 64 hexadecimal digits of a token's hash",
        _ => null,
    };
}
