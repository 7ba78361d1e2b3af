using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Security.Authentication;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Trainer.Contracts;

/// <summary>The coordinator refused a request or could not be reached.</summary>
public sealed class CoordinatorException(HttpStatusCode? status, string message, Exception? inner = null) : Exception(message, inner)
{
    /// <summary>Null when nobody answered.</summary>
    public HttpStatusCode? Status { get; } = status;
}

/// <summary>Speaks to a coordinator through its Unix domain socket or over HTTP. Used by the CLI and by agents; ranks speak so to their agent.</summary>
public sealed class CoordinatorClient : IDisposable
{
    private static readonly TimeSpan s_connectTakes = TimeSpan.FromSeconds(5);

    private readonly HttpClient _http;
    private readonly string _address;

    public CoordinatorClient(string socketPath, TimeSpan? timeout = null)
        : this(socketPath, null, null, timeout)
    {
    }

    private CoordinatorClient(string address, Uri? url, string? token, TimeSpan? timeout)
    {
        _address = address;
        // Connections are renewed now and then, because a coordinator may move to another address behind its name.
        var handler = new SocketsHttpHandler { UseProxy = false, ConnectTimeout = s_connectTakes, PooledConnectionLifetime = TimeSpan.FromMinutes(2) };
        if (url is null)
        {
            handler.ConnectCallback = ConnectAsync;
        }
        _http = new HttpClient(handler) { BaseAddress = url ?? new Uri("http://coordinator/"), Timeout = timeout ?? TimeSpan.FromSeconds(40) };
        if (token is { Length: > 0 })
        {
            _http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", token);
        }
    }

    /// <param name="address">http(s)://host:port, or the path of a Unix socket.</param>
    /// <param name="token">Sent as bearer token when there is one; never part of a message.</param>
    /// <param name="timeout">Of one request; 40 s when absent.</param>
    /// <exception cref="ConfigException">The address is neither, or the token none.</exception>
    public static CoordinatorClient At(string address, string? token = null, TimeSpan? timeout = null)
    {
        token = token?.Trim();
        if (token?.All(letter => letter is >= '!' and <= '~') == false)
        {
            throw new ConfigException("TRAINER_TOKEN is no token: it holds spaces, line ends or letters that none has; copy it as \"trainer token\" printed it");
        }
        if (!address.Contains("://", StringComparison.Ordinal))
        {
            if (address.Contains(':', StringComparison.Ordinal) && !address.Contains('/', StringComparison.Ordinal) && !File.Exists(address))
            {
                throw new ConfigException($"{address}: is that a host and a port? Then write http://{address}, or https://; there is no socket of that name");
            }
            return new CoordinatorClient(Path.GetFullPath(address), null, token, timeout);
        }
        return Uri.TryCreate(address, UriKind.Absolute, out Uri? url) && url.Scheme is "http" or "https" && url is { UserInfo: "", Query: "", Fragment: "" }
            ? new CoordinatorClient(address, url.AbsolutePath.EndsWith('/') ? url : new Uri(url.AbsoluteUri + "/"), token, timeout)
            : throw new ConfigException("the coordinator's address is not one; use http(s)://host:port, or the path of its Unix socket (a token belongs into TRAINER_TOKEN)");
    }

    public Task<CoordinatorInfo> InfoAsync(CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Get, "v1/info", null, ContractsJson.Default.CoordinatorInfo, cancellationToken);

    /// <param name="traceParent">W3C trace context below which the job is traced.</param>
    public Task<JobView> SubmitAsync(SubmitRequest request, string? traceParent = null, CancellationToken cancellationToken = default)
    {
        JsonContent content = JsonContent.Create(request, ContractsJson.Default.SubmitRequest);
        if (traceParent is { Length: > 0 })
        {
            content.Headers.TryAddWithoutValidation("traceparent", traceParent);
        }
        return SendAsync(HttpMethod.Post, "v1/jobs", content, ContractsJson.Default.JobView, cancellationToken);
    }

    public Task<JobList> ListAsync(CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Get, "v1/jobs", null, ContractsJson.Default.JobList, cancellationToken);

    /// <param name="job">An id, a unique name, or the unique beginning of either.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    public Task<JobView> GetAsync(string job, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Get, Url(job), null, ContractsJson.Default.JobView, cancellationToken);

    /// <inheritdoc cref="GetAsync"/>
    public Task<JobView> CancelAsync(string job, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Post, $"{Url(job)}/cancel", null, ContractsJson.Default.JobView, cancellationToken);

    /// <inheritdoc cref="GetAsync"/>
    public Task<JobView> ResumeAsync(string job, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Post, $"{Url(job)}/resume", null, ContractsJson.Default.JobView, cancellationToken);

    /// <inheritdoc cref="GetAsync"/>
    public Task<JobView> PauseAsync(string job, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Post, $"{Url(job)}/pause", null, ContractsJson.Default.JobView, cancellationToken);

    /// <inheritdoc cref="GetAsync"/>
    public Task<JobView> SetPriorityAsync(string job, int priority, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Post, $"{Url(job)}/priority", JsonContent.Create(new PriorityRequest { Priority = priority }, ContractsJson.Default.PriorityRequest),
            ContractsJson.Default.JobView, cancellationToken);

    /// <summary>What happened to the job after an event; of none, waits for one, or for the end of the job.</summary>
    /// <param name="wait">At most; whole seconds.</param>
    public Task<EventList> EventsAsync(string job, int after, TimeSpan wait, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Get, FormattableString.Invariant($"{Url(job)}/events?after={after}&wait={wait.TotalSeconds:0}"), null, ContractsJson.Default.EventList, cancellationToken);

    /// <summary>What a rank wrote, from an offset on; at most <see cref="LogLength.MaxPiece"/> bytes, none when there is no more yet.</summary>
    /// <param name="wait">For more when there is none; whole seconds.</param>
    public Task<byte[]> ReadLogAsync(RankName rank, LogStream stream, long offset, TimeSpan wait = default, CancellationToken cancellationToken = default) =>
        AskAsync(HttpMethod.Get, FormattableString.Invariant($"{LogUrl(rank, stream, offset)}&wait={wait.TotalSeconds:0}"), null,
            response => response.Content.ReadAsByteArrayAsync(cancellationToken), cancellationToken);

    /// <summary>The lines of a job's metrics after a step, each step once, as they come; ends with the job.</summary>
    public async IAsyncEnumerable<string> MetricsAsync(string job, long step, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        using StreamReader events = await AskAsync(HttpMethod.Get, FormattableString.Invariant($"{Url(job)}/stream?after={int.MaxValue}&step={step}"), null,
            async response => new StreamReader(await response.Content.ReadAsStreamAsync(cancellationToken)), cancellationToken, HttpCompletionOption.ResponseHeadersRead);
        string? kind = null;
        while (await ReadLineAsync(events, cancellationToken) is { } line)
        {
            kind = line.StartsWith("event: ", StringComparison.Ordinal) ? line["event: ".Length..] : kind;
            if (kind == "metrics" && line.StartsWith("data: ", StringComparison.Ordinal))
            {
                yield return line["data: ".Length..];
            }
        }
    }

    /// <summary>What is known of a job's checkpoints.</summary>
    public Task<CheckpointList> CheckpointsAsync(string job, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Get, $"{Url(job)}/checkpoints", null, ContractsJson.Default.CheckpointList, cancellationToken);

    /// <summary>Says what was found in all files of a checkpoint.</summary>
    public Task<CheckpointList> JudgeCheckpointAsync(string job, long step, CheckpointVerdict verdict, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Post, FormattableString.Invariant($"{Url(job)}/checkpoints/{step}/verdict"), JsonContent.Create(verdict, ContractsJson.Default.CheckpointVerdict),
            ContractsJson.Default.CheckpointList, cancellationToken);

    /// <param name="pool">Null: of all pools.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    public Task<NodeList> NodesAsync(string? pool = null, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Get, pool is null ? "v1/nodes" : $"v1/nodes?pool={Uri.EscapeDataString(pool)}", null, ContractsJson.Default.NodeList, cancellationToken);

    public Task<PoolList> PoolsAsync(CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Get, "v1/pools", null, ContractsJson.Default.PoolList, cancellationToken);

    /// <param name="slots">That the project may hold at once; null: no bound.</param>
    public Task<PoolView> SetQuotaAsync(string pool, string project, int? slots, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Put, $"v1/pools/{Uri.EscapeDataString(pool)}/quotas/{Uri.EscapeDataString(project)}",
            JsonContent.Create(new QuotaRequest { Slots = slots }, ContractsJson.Default.QuotaRequest), ContractsJson.Default.PoolView, cancellationToken);

    /// <summary>Empties a node, or takes it back into service.</summary>
    public Task<NodeView> DrainAsync(string node, bool drain, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Post, $"v1/nodes/{Uri.EscapeDataString(node)}/{(drain ? "drain" : "undrain")}", null, ContractsJson.Default.NodeView, cancellationToken);

    /// <summary>Reports what a rank does; the order is to be obeyed. An unreachable coordinator is no reason to stop training.</summary>
    public Task<RankReply> HeartbeatAsync(JobId job, RankReport report, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Post, $"{Url(job.Value)}/heartbeat", JsonContent.Create(report, ContractsJson.Default.RankReport),
            ContractsJson.Default.RankReply, cancellationToken);

    /// <summary>Says how a node is; the answer is everything that it is to run.</summary>
    public Task<NodeOrders> ReportAsync(NodeReport report, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Post, $"v1/nodes/{Uri.EscapeDataString(report.Node)}/report?contract={report.Contract}", JsonContent.Create(report, ContractsJson.Terse.NodeReport),
            ContractsJson.Terse.NodeOrders, cancellationToken);

    /// <summary>Returns when there may be new orders for a node, or after a while.</summary>
    public async Task WaitForOrdersAsync(string node, CancellationToken cancellationToken = default) =>
        await AskAsync(HttpMethod.Get, $"v1/nodes/{Uri.EscapeDataString(node)}/changes", null, _ => Task.FromResult(0), cancellationToken);

    /// <summary>Sends a piece of what a rank wrote.</summary>
    /// <param name="offset">Of the first byte in the stream.</param>
    /// <param name="bytes">At most <see cref="LogLength.MaxPiece"/>; none asks for the length.</param>
    /// <returns>How much of the stream the coordinator has: where to go on, whatever was sent.</returns>
    public async Task<long> SendLogAsync(RankName rank, LogStream stream, long offset, ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken = default) =>
        (await SendAsync(HttpMethod.Put, LogUrl(rank, stream, offset),
            new ReadOnlyMemoryContent(bytes), ContractsJson.Default.LogLength, cancellationToken)).Length;

    /// <summary>A code that signs in to the dashboard once, as this client.</summary>
    public Task<SignInCode> SignInCodeAsync(CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Post, "session/codes", null, ContractsJson.Default.SignInCode, cancellationToken);

    /// <summary>Has the coordinator listen on its machine for its owner's browser.</summary>
    /// <param name="port">0: that of before, or any.</param>
    public Task<DashboardView> OpenDashboardAsync(int port, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Put, "v1/dashboard", JsonContent.Create(new DashboardRequest { Port = port }, ContractsJson.Default.DashboardRequest),
            ContractsJson.Default.DashboardView, cancellationToken);

    /// <summary>Asks the coordinator to exit; running ranks go on.</summary>
    public Task<CoordinatorInfo> StopAsync(CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Post, "v1/stop", null, ContractsJson.Default.CoordinatorInfo, cancellationToken);

    public void Dispose() => _http.Dispose();

    private Task<T> SendAsync<T>(HttpMethod method, string url, HttpContent? content, JsonTypeInfo<T> type, CancellationToken cancellationToken) =>
        AskAsync(method, url, content, async response => await response.Content.ReadFromJsonAsync(type, cancellationToken)
            ?? throw new CoordinatorException(response.StatusCode, "the coordinator answered null"), cancellationToken);

    /// <summary>A stream that breaks off has lost its coordinator.</summary>
    private async ValueTask<string?> ReadLineAsync(StreamReader reader, CancellationToken cancellationToken)
    {
        try
        {
            return await reader.ReadLineAsync(cancellationToken);
        }
        catch (Exception error) when (error is IOException or HttpRequestException)
        {
            throw new CoordinatorException(null, $"no coordinator answers on {_address}", error);
        }
    }

    /// <param name="until">With the headers only, the answer stays open for whoever reads it.</param>
    private async Task<T> AskAsync<T>(HttpMethod method, string url, HttpContent? content, Func<HttpResponseMessage, Task<T>> read, CancellationToken cancellationToken,
        HttpCompletionOption until = HttpCompletionOption.ResponseContentRead)
    {
        using var request = new HttpRequestMessage(method, url) { Content = content };
        try
        {
            if (content is not null)
            {
                // With its length known it goes in one piece, not in chunks.
                await content.LoadIntoBufferAsync(cancellationToken);
            }
            HttpResponseMessage response = await _http.SendAsync(request, until, cancellationToken);
            using HttpResponseMessage? ends = until is HttpCompletionOption.ResponseContentRead || !response.IsSuccessStatusCode ? response : null;
            if (response.IsSuccessStatusCode)
            {
                return await read(response);
            }
            throw new CoordinatorException(response.StatusCode, await ErrorAsync(response, cancellationToken));
        }
        catch (HttpRequestException error)
        {
            throw Unreachable(error);
        }
        catch (OperationCanceledException error) when (!cancellationToken.IsCancellationRequested)
        {
            throw new CoordinatorException(null, $"the coordinator on {_address} did not answer in time", error);
        }
        catch (JsonException error)
        {
            throw new CoordinatorException(null, $"the coordinator on {_address} speaks another version ({error.Message}); run \"trainer stop\" and try again", error);
        }
    }

    private CoordinatorException Unreachable(HttpRequestException error)
    {
        string reason = error.InnerException?.Message ?? error.Message;
        return new CoordinatorException(null, error.HttpRequestError switch
        {
            HttpRequestError.SecureConnectionError when error.InnerException is AuthenticationException && reason.Contains("certificate", StringComparison.OrdinalIgnoreCase) =>
                $"the certificate of the coordinator on {_address} is not trusted here ({reason}); name its issuer's PEM file in SSL_CERT_FILE",
            HttpRequestError.SecureConnectionError => $"no coordinator answers securely on {_address} ({reason}); if it speaks plain http, name it with http://",
            HttpRequestError.ResponseEnded or HttpRequestError.InvalidResponse when _address.StartsWith("http://", StringComparison.OrdinalIgnoreCase) =>
                $"no coordinator answers on {_address}: what listens there gives no answer in http; if it speaks https, name it with https://",
            _ => $"no coordinator answers on {_address}",
        }, error);
    }

    private static async Task<string> ErrorAsync(HttpResponseMessage response, CancellationToken cancellationToken)
    {
        string body = await response.Content.ReadAsStringAsync(cancellationToken);
        try
        {
            return JsonSerializer.Deserialize(body, ContractsJson.Default.ApiError)!.Error;
        }
        catch (JsonException)
        {
            return $"the coordinator answered {(int)response.StatusCode} {response.ReasonPhrase}";
        }
    }

    private static string LogUrl(RankName rank, LogStream stream, long offset) =>
        FormattableString.Invariant($"{Url(rank.Job.Value)}/attempts/{rank.Attempt}/ranks/{rank.Rank}/{Spelling.Of(stream)}?offset={offset}");

    private static string Url(string job) => $"v1/jobs/{Uri.EscapeDataString(job)}";

    private async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellationToken)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(_address), cancellationToken);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
