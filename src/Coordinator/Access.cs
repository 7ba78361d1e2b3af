using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>What a token may do.</summary>
public enum Role
{
    /// <summary>Everything with the jobs of its project.</summary>
    User,

    /// <summary>Speaks as a worker agent.</summary>
    Worker,

    /// <summary>Everything.</summary>
    Admin,

    /// <summary>Reads the metrics of all projects, and nothing else.</summary>
    Monitor,
}

/// <summary>Who makes a request.</summary>
/// <param name="Project">Of a user; null: all projects.</param>
public sealed record Caller(Role Role, string? Project)
{
    public bool MaySee(string project) => Role is Role.Admin || (Role is Role.User && Project == project);
}

/// <summary>
/// Who may speak to the coordinator: whoever may open its Unix socket is its owner; over TCP a bearer token decides. Tokens are
/// kept as SHA-256 only. A refusal says nothing about what exists.
/// </summary>
public sealed class Access
{
    private const string Scheme = "Bearer ";

    private readonly Dictionary<string, Caller> _callers;

    private Access(Dictionary<string, Caller> callers) => _callers = callers;

    public static Access Nobody { get; } = new([]);

    /// <param name="path">JSON: [{"sha256": "...", "role": "user", "project": "default"}], as "trainer token" writes it.</param>
    /// <exception cref="ConfigException">The file is no such list.</exception>
    public static Access Load(string path)
    {
        try
        {
            using FileStream file = File.OpenRead(path);
            AccessEntry[] entries = JsonSerializer.Deserialize(file, ContractsJson.Default.AccessEntryArray) ?? [];
            return new Access(entries.ToDictionary(entry => entry.Sha256.ToLowerInvariant(), Caller, StringComparer.Ordinal));
        }
        catch (Exception error) when (error is JsonException or IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw new ConfigException($"{path}: not a list of tokens ({error.Message}); \"trainer token\" writes one");
        }

        Caller Caller(AccessEntry entry) => entry.Role switch
        {
            "admin" => new Caller(Role.Admin, null),
            "worker" => new Caller(Role.Worker, null),
            "monitor" => new Caller(Role.Monitor, null),
            "user" => new Caller(Role.User, JobId.TryParse(entry.Project, out _) ? entry.Project
                : throw new ArgumentException("a token of role user needs a project, named like a job")),
            _ => throw new ArgumentException($"role \"{entry.Role}\": user, worker, monitor or admin is expected"),
        };
    }

    /// <summary>Lets a request through to its endpoint when the endpoint's <see cref="Operation"/> says so; without one, the admin's only.</summary>
    public void Guard(IApplicationBuilder app) => app.Use(async (context, next) =>
    {
        Operation? operation = context.GetEndpoint()?.Metadata.GetMetadata<Operation>();
        if (operation is { IsOpen: true })
        {
            await next(context);
            return;
        }
        Caller? caller = context.Connection.RemoteIpAddress is null ? new Caller(Role.Admin, null) : Find(context.Request);
        if (caller is null)
        {
            context.Response.Headers.WWWAuthenticate = "Bearer";
            throw new ApiException(StatusCodes.Status401Unauthorized, "a valid token is needed");
        }
        if (caller.Role is not Role.Admin && operation?.Roles.Contains(caller.Role) != true)
        {
            throw new ApiException(StatusCodes.Status403Forbidden, "this token may not do that");
        }
        context.Items[typeof(Caller)] = caller;
        await next(context);
    });

    public static Caller Of(HttpContext context) => (Caller)context.Items[typeof(Caller)]!;

    private Caller? Find(HttpRequest request)
    {
        string? header = request.Headers.Authorization;
        return header is not null && header.StartsWith(Scheme, StringComparison.OrdinalIgnoreCase)
            ? _callers.GetValueOrDefault(Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(header[Scheme.Length..].Trim()))))
            : null;
    }
}
