using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>Signing in to the dashboard and out of it.</summary>
internal sealed class SessionApi(Sessions sessions, Access access, LocalAddress local)
{
    public void Map(IEndpointRouteBuilder routes)
    {
        routes.MapPost("/session", OpenAsync).WithMetadata(new Operation("Signs in with a token or a one-time code; the answer sets a cookie that stands for it.")
        {
            IsOpen = true, Request = ContractsJson.Default.SessionRequest, Answer = ContractsJson.Default.SessionView,
        });
        routes.MapGet("/session", context => AnswerAsync(context, Access.Of(context), (context.Items[typeof(SessionEntry)] as SessionEntry)?.ExpiresAt))
            .WithMetadata(new Operation("Who asks.") { Roles = [Role.User], Answer = ContractsJson.Default.SessionView });
        routes.MapDelete("/session", CloseAsync)
            .WithMetadata(new Operation("Signs out.") { Roles = [Role.User], Status = StatusCodes.Status204NoContent });
        routes.MapPost("/session/codes", InviteAsync)
            .WithMetadata(new Operation("A code that signs in once, within five minutes, as whoever asks for it.") { Roles = [Role.User], Answer = ContractsJson.Default.SignInCode });
        routes.MapPut("/v1/dashboard", ListenAsync).WithMetadata(new Operation("Listens on this machine for the owner's browser, from now on.")
        {
            Request = ContractsJson.Default.DashboardRequest, Answer = ContractsJson.Default.DashboardView,
        });
    }

    private async Task OpenAsync(HttpContext context)
    {
        SessionRequest request = await Http.ReadAsync(context, ContractsJson.Default.SessionRequest);
        Caller? caller = request switch
        {
            { Token: { Length: > 0 } token, Code: null } => access.FindToken(token),
            { Code: { Length: > 0 } code, Token: null } => await sessions.RedeemAsync(code, access),
            _ => throw new ApiException(StatusCodes.Status400BadRequest, "either a token or a code is expected"),
        };
        if (caller is null)
        {
            throw new ApiException(StatusCodes.Status401Unauthorized, request.Code is null
                ? "this token is not in the coordinator's list"
                : "this link has been used or is too old; \"trainer dashboard\" makes a new one");
        }
        if (caller.Role is not (Role.User or Role.Admin))
        {
            throw new ApiException(StatusCodes.Status403Forbidden, $"a {Spelling.Of(caller.Role)}'s token does not open the dashboard; use one of role user or admin");
        }
        await AnswerAsync(context, caller, (await sessions.OpenAsync(context, caller)).ExpiresAt);
    }

    private static Task AnswerAsync(HttpContext context, Caller caller, DateTimeOffset? expiresAt) => Http.AnswerAsync(context, new SessionView
    {
        Role = Spelling.Of(caller.Role),
        Project = caller.Project,
        ExpiresAt = expiresAt,
        Version = JobApi.Version,
        EnginePage = caller.Role is Role.Admin ? Silo.Page : null,
    }, ContractsJson.Default.SessionView);

    private async Task CloseAsync(HttpContext context)
    {
        await sessions.CloseAsync(context);
        context.Response.StatusCode = StatusCodes.Status204NoContent;
    }

    private async Task InviteAsync(HttpContext context) =>
        await Http.AnswerAsync(context, await sessions.InviteAsync(Access.Of(context)), ContractsJson.Default.SignInCode);

    private async Task ListenAsync(HttpContext context)
    {
        DashboardRequest request = await Http.ReadAsync(context, ContractsJson.Default.DashboardRequest);
        if (request.Port is < 0 or > ushort.MaxValue)
        {
            throw new ApiException(StatusCodes.Status400BadRequest, "port: 0 to 65535");
        }
        Uri address = await local.ListenAsync(request.Port, context.RequestAborted)
            ?? throw new ApiException(StatusCodes.Status409Conflict, $"port {request.Port} of this machine is taken; give another one, or none");
        await Http.AnswerAsync(context, new DashboardView { Address = address.ToString().TrimEnd('/') }, ContractsJson.Default.DashboardView);
    }
}
