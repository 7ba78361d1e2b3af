using System.Net;
using System.Net.Sockets;

namespace Coordinator.Tests;

/// <summary>A record of server-sent events.</summary>
public sealed record SentEvent(string Id, string Kind, string Data);

/// <summary>Reads server-sent events of a coordinator over its Unix socket.</summary>
public sealed class EventReader : IDisposable
{
    private readonly HttpClient _http;
    private readonly HttpResponseMessage _response;
    private readonly StreamReader? _reader;

    private EventReader(HttpClient http, HttpResponseMessage response, StreamReader? reader)
    {
        _http = http;
        _response = response;
        _reader = reader;
    }

    public HttpStatusCode Status => _response.StatusCode;

    public static async Task<EventReader> OpenAsync(string socketPath, string path, string? lastId = null)
    {
        var http = new HttpClient(new SocketsHttpHandler
        {
            ConnectCallback = async (_, cancellationToken) =>
            {
                var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                await socket.ConnectAsync(new UnixDomainSocketEndPoint(socketPath), cancellationToken);
                return new NetworkStream(socket, ownsSocket: true);
            },
        }) { BaseAddress = new Uri("http://coordinator/") };
        using var request = new HttpRequestMessage(HttpMethod.Get, path);
        request.Headers.Accept.ParseAdd("text/event-stream");
        if (lastId is not null)
        {
            request.Headers.Add("Last-Event-ID", lastId);
        }
        HttpResponseMessage response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
        bool events = response.StatusCode == HttpStatusCode.OK;
        if (events)
        {
            Assert.Equal("text/event-stream", response.Content.Headers.ContentType!.MediaType);
        }
        return new EventReader(http, response, events ? new StreamReader(await response.Content.ReadAsStreamAsync()) : null);
    }

    /// <summary>Null at the end of the stream.</summary>
    public async Task<SentEvent?> NextAsync()
    {
        string id = "", kind = "", data = "";
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(30));
        while (_reader is not null && await _reader.ReadLineAsync(limit.Token) is { } line)
        {
            switch (line.Split(": ", 2))
            {
                case ["id", var text]:
                    id = text;
                    break;
                case ["event", var text]:
                    kind = text;
                    break;
                case ["data", var text]:
                    data = text;
                    break;
                case [""] when kind.Length > 0:
                    return new SentEvent(id, kind, data);
            }
        }
        return null;
    }

    /// <summary>Up to and with the first that holds, or to the end.</summary>
    public async Task<List<SentEvent>> UntilAsync(Func<SentEvent, bool> holds)
    {
        var records = new List<SentEvent>();
        while (await NextAsync() is { } record)
        {
            records.Add(record);
            if (holds(record))
            {
                break;
            }
        }
        return records;
    }

    public void Dispose()
    {
        _reader?.Dispose();
        _response.Dispose();
        _http.Dispose();
    }
}
