using System.Collections.Concurrent;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Http;
using Orleans;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>
/// Sessions of the dashboard: a cookie with a random secret stands for who signed in, never for the token itself. One-time codes
/// open a session for somebody who is known already.
/// </summary>
internal sealed class Sessions(IGrainFactory grains, TimeProvider time)
{
    private static readonly TimeSpan s_lasts = TimeSpan.FromDays(7);
    private static readonly TimeSpan s_codeLasts = TimeSpan.FromMinutes(5);

    /// <summary>A session that was closed at another coordinator is over here after so long.</summary>
    private static readonly TimeSpan s_remembered = TimeSpan.FromSeconds(2);

    private readonly ConcurrentDictionary<string, (SessionEntry Entry, long At)> _known = new(StringComparer.Ordinal);

    private ISessionsGrain Grain => grains.GetGrain<ISessionsGrain>(ISessionsGrain.Key);

    private ISessionsGrain Codes => grains.GetGrain<ISessionsGrain>("codes");

    /// <summary>Who signed in, when the request has the cookie of a session that lasts and whose token is still in the list.</summary>
    public async Task<Caller?> FindAsync(HttpContext context, Access access)
    {
        if (context.Request.Cookies[CookieOf(context)] is not { Length: > 0 and < 200 } secret)
        {
            return null;
        }
        SessionEntry? entry = await LookAsync(Hash(secret));
        context.Items[typeof(SessionEntry)] = entry;
        return entry is null ? null : CallerOf(entry, access);
    }

    /// <summary>Who asked some time ago would be let in now: the token is still in the list, and the session, if it was one, lasts.</summary>
    public async Task<bool> StillHoldsAsync(Caller caller, SessionEntry? session, Access access) =>
        (caller.Token is null || access.Find(caller.Token) == caller) && (session is null || await LookAsync(session.Sha256) is not null);

    /// <summary>Answers with the cookie.</summary>
    public async Task<SessionEntry> OpenAsync(HttpContext context, Caller caller)
    {
        (string secret, SessionEntry entry) = New(caller, s_lasts);
        await Grain.Put(entry);
        context.Response.Cookies.Append(CookieOf(context), secret, Cookie(context, entry.ExpiresAt));
        return entry;
    }

    public async Task CloseAsync(HttpContext context)
    {
        if (context.Request.Cookies[CookieOf(context)] is { Length: > 0 and < 200 } secret)
        {
            string hash = Hash(secret);
            _known.TryRemove(hash, out _);
            await Grain.Take(hash);
        }
        context.Response.Cookies.Delete(CookieOf(context), Cookie(context, null));
    }

    /// <summary>Signs in once, soon, as the caller.</summary>
    public async Task<SignInCode> InviteAsync(Caller caller)
    {
        (string secret, SessionEntry entry) = New(caller, s_codeLasts);
        // Of another kind than sessions: a code is no cookie, nor the other way round.
        await Codes.Put(entry with { Sha256 = CodeHash(secret) });
        return new SignInCode { Code = secret, ExpiresAt = entry.ExpiresAt };
    }

    /// <summary>Null: the code was never given, has been used, or is too old.</summary>
    public async Task<Caller?> RedeemAsync(string code, Access access) =>
        await Codes.Take(CodeHash(code)) is { } entry ? CallerOf(entry, access) : null;

    /// <summary>Null when there is none, or no longer.</summary>
    private async Task<SessionEntry?> LookAsync(string hash)
    {
        if (!_known.TryGetValue(hash, out (SessionEntry Entry, long At) known) || time.GetElapsedTime(known.At) > s_remembered)
        {
            if (await Grain.Find(hash) is not { } found)
            {
                _known.TryRemove(hash, out _);
                return null;
            }
            _known[hash] = known = (found, time.GetTimestamp());
        }
        return known.Entry.ExpiresAt > time.GetUtcNow() ? known.Entry : null;
    }

    private (string Secret, SessionEntry Entry) New(Caller caller, TimeSpan lasts)
    {
        string secret = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(32));
        return (secret, new SessionEntry
        {
            Sha256 = Hash(secret),
            Role = Spelling.Of(caller.Role),
            Project = caller.Project,
            Token = caller.Token,
            ExpiresAt = time.GetUtcNow() + lasts,
        });
    }

    private static Caller? CallerOf(SessionEntry entry, Access access) => entry.Token is { } token
        ? access.Find(token)
        : entry.Role == Spelling.Of(Role.Admin) ? Caller.Owner : null;

    private static CookieOptions Cookie(HttpContext context, DateTimeOffset? expires) => new()
    {
        HttpOnly = true, SameSite = SameSiteMode.Strict, Secure = context.Request.IsHttps, Path = "/", Expires = expires, IsEssential = true,
    };

    /// <summary>Browsers send cookies to every port of a host: coordinators of one machine must not take each other's.</summary>
    private static string CookieOf(HttpContext context) => string.Create(CultureInfo.InvariantCulture, $"trainer-session-{context.Connection.LocalPort}");

    private static string CodeHash(string code) => Hash("code:" + code);

    private static string Hash(string secret) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(secret)));
}
