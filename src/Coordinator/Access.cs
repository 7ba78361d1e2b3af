using System.Net;
using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
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
/// <param name="Token">SHA-256 of the caller's token; null: the owner, who needs none.</param>
public sealed record Caller(Role Role, string? Project, string? Token)
{
    /// <summary>Whoever may open the Unix socket.</summary>
    public static Caller Owner { get; } = new(Role.Admin, null, null);

    public bool MaySee(string project) => Role is Role.Admin || (Role is Role.User && Project == project);
}

/// <summary>
/// Who may speak to the coordinator: whoever may open its Unix socket is its owner; over TCP a bearer token decides, or the session
/// that somebody opened with one. Tokens are kept as SHA-256 only. A refusal says nothing about what exists.
/// </summary>
public sealed class Access
{
    private const string Scheme = "Bearer ";

    /// <summary>Set by the dashboard's own script.</summary>
    private const string OwnPages = "X-Trainer-Page";

    private readonly Dictionary<string, Caller> _callers;

    private Access(Dictionary<string, Caller> callers) => _callers = callers;

    public static Access Nobody { get; } = new([]);

    /// <inheritdoc cref="AccessEntry.ReadList"/>
    public static Access Load(string path) =>
        new(AccessEntry.ReadList(path).Select(CallerOf).ToDictionary(caller => caller.Token!, StringComparer.Ordinal));

    /// <summary>Lets a request through to its endpoint when the endpoint's <see cref="Operation"/> says so; without one, the admin's only. What is not there is not there for anybody.</summary>
    public void Guard(IApplicationBuilder app) => app.Use(async (context, next) =>
    {
        Endpoint? endpoint = context.GetEndpoint();
        Operation? operation = endpoint?.Metadata.GetMetadata<Operation>();
        if (IsOwner(context) && !IsLocal(context.Request.Host.Host))
        {
            throw new ApiException(StatusCodes.Status403Forbidden, "over its socket the coordinator is called localhost, or by a loopback address");
        }
        if (!HttpMethods.IsGet(context.Request.Method) && IsOfAnotherSite(context.Request))
        {
            throw new ApiException(StatusCodes.Status403Forbidden, "pages of other sites may not do that");
        }
        if (operation is { IsOpen: true })
        {
            await next(context);
            return;
        }
        Caller? caller = await WhoAsync(context);
        if (caller is null)
        {
            // What has no operation is not there, or a page of the engine's.
            if (operation is null or { IsPage: true } && HttpMethods.IsGet(context.Request.Method) && Http.Asks(context.Request, "text/html"))
            {
                context.Response.Redirect($"/sign-in?next={Uri.EscapeDataString(context.Request.Path + context.Request.QueryString)}");
                return;
            }
            context.Response.Headers.WWWAuthenticate = "Bearer";
            throw new ApiException(StatusCodes.Status401Unauthorized, "a valid token is needed");
        }
        if (endpoint is not null && caller.Role is not Role.Admin && operation?.Roles.Contains(caller.Role) != true)
        {
            throw new ApiException(StatusCodes.Status403Forbidden, "this token may not do that");
        }
        context.Items[typeof(Caller)] = caller;
        await next(context);
    });

    public static Caller Of(HttpContext context) => (Caller)context.Items[typeof(Caller)]!;

    public Caller? FindToken(string token) => Find(Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(token.Trim()))));

    /// <param name="sha256">Of the token.</param>
    public Caller? Find(string sha256) => _callers.GetValueOrDefault(sha256);

    private static Caller CallerOf(AccessEntry entry)
    {
        string sha256 = entry.Sha256.ToLowerInvariant();
        return entry.Role switch
        {
            "admin" => new Caller(Role.Admin, null, sha256),
            "worker" => new Caller(Role.Worker, null, sha256),
            "monitor" => new Caller(Role.Monitor, null, sha256),
            _ => new Caller(Role.User, entry.Project, sha256),
        };
    }

    private async Task<Caller?> WhoAsync(HttpContext context)
    {
        if (IsOwner(context))
        {
            return Caller.Owner;
        }
        string? header = context.Request.Headers.Authorization;
        if (header is not null)
        {
            return header.StartsWith(Scheme, StringComparison.OrdinalIgnoreCase) ? FindToken(header[Scheme.Length..]) : null;
        }
        Caller? caller = await context.RequestServices.GetRequiredService<Sessions>().FindAsync(context, this);
        if (caller is not null && !HttpMethods.IsGet(context.Request.Method) && !context.Request.Headers.ContainsKey(OwnPages))
        {
            throw new ApiException(StatusCodes.Status403Forbidden, $"a session changes something only with the header {OwnPages}, which pages of other sites cannot send");
        }
        return caller;
    }

    /// <summary>It came over the Unix socket.</summary>
    private static bool IsOwner(HttpContext context) => context.Connection.RemoteIpAddress is null;

    /// <summary>
    /// What our own clients and a person's forwarded port are called. Under any other name it is a page of somebody else's, whose host
    /// has meanwhile become the address of that port.
    /// </summary>
    private static bool IsLocal(string host) =>
        host is "" or "coordinator" || host.Equals("localhost", StringComparison.OrdinalIgnoreCase) || (IPAddress.TryParse(host, out IPAddress? address) && IPAddress.IsLoopback(address));

    /// <summary>Browsers say where a request comes from; others say nothing.</summary>
    private static bool IsOfAnotherSite(HttpRequest request) =>
        request.Headers.Origin is [{ } origin, ..] && !(Uri.TryCreate(origin, UriKind.Absolute, out Uri? from) && string.Equals(from.Authority, request.Host.Value, StringComparison.OrdinalIgnoreCase));
}
