using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Trainer.Contracts;

/// <summary>The coordinator refused a request or could not be reached.</summary>
public sealed class CoordinatorException(HttpStatusCode? status, string message, Exception? inner = null) : Exception(message, inner)
{
    /// <summary>Null when nobody answered.</summary>
    public HttpStatusCode? Status { get; } = status;
}

/// <summary>Speaks to a coordinator through its Unix domain socket. Used by the CLI and by ranks.</summary>
public sealed class CoordinatorClient : IDisposable
{
    private readonly HttpClient _http;
    private readonly string _socket;

    public CoordinatorClient(string socketPath, TimeSpan? timeout = null)
    {
        _socket = socketPath;
        _http = new HttpClient(new SocketsHttpHandler { ConnectCallback = ConnectAsync, UseProxy = false })
        {
            BaseAddress = new Uri("http://coordinator/"),
            Timeout = timeout ?? TimeSpan.FromSeconds(40),
        };
    }

    public Task<CoordinatorInfo> InfoAsync(CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Get, "v1/info", null, ContractsJson.Default.CoordinatorInfo, cancellationToken);

    public Task<JobView> SubmitAsync(SubmitRequest request, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Post, "v1/jobs", JsonContent.Create(request, ContractsJson.Default.SubmitRequest), ContractsJson.Default.JobView, cancellationToken);

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

    /// <summary>Reports what a rank does; the order is to be obeyed. An unreachable coordinator is no reason to stop training.</summary>
    public Task<RankReply> HeartbeatAsync(JobId job, RankReport report, CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Post, $"{Url(job.Value)}/heartbeat", JsonContent.Create(report, ContractsJson.Default.RankReport),
            ContractsJson.Default.RankReply, cancellationToken);

    /// <summary>Asks the coordinator to exit; running ranks go on.</summary>
    public Task<CoordinatorInfo> StopAsync(CancellationToken cancellationToken = default) =>
        SendAsync(HttpMethod.Post, "v1/stop", null, ContractsJson.Default.CoordinatorInfo, cancellationToken);

    public void Dispose() => _http.Dispose();

    private async Task<T> SendAsync<T>(HttpMethod method, string url, HttpContent? content, JsonTypeInfo<T> type, CancellationToken cancellationToken)
    {
        using var request = new HttpRequestMessage(method, url) { Content = content };
        try
        {
            using HttpResponseMessage response = await _http.SendAsync(request, cancellationToken);
            if (response.IsSuccessStatusCode)
            {
                return await response.Content.ReadFromJsonAsync(type, cancellationToken)
                    ?? throw new CoordinatorException(response.StatusCode, "the coordinator answered null");
            }
            throw new CoordinatorException(response.StatusCode, await ErrorAsync(response, cancellationToken));
        }
        catch (HttpRequestException error)
        {
            throw Unreachable(error);
        }
        catch (OperationCanceledException error) when (!cancellationToken.IsCancellationRequested)
        {
            throw new CoordinatorException(null, $"the coordinator on {_socket} did not answer in time", error);
        }
        catch (JsonException error)
        {
            throw new CoordinatorException(null, $"the coordinator on {_socket} speaks another version ({error.Message}); run \"trainer stop\" and try again", error);
        }
    }

    private CoordinatorException Unreachable(Exception error) => new(null, $"no coordinator answers on {_socket}", error);

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

    private static string Url(string job) => $"v1/jobs/{Uri.EscapeDataString(job)}";

    private async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellationToken)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(_socket), cancellationToken);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
