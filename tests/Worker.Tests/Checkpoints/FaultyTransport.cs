using System.Diagnostics.CodeAnalysis;
using Azure;
using Azure.Core;
using Azure.Core.Pipeline;

namespace Trainer.Worker.Tests.Checkpoints;

/// <summary>HTTP whose requests fail as a test says: by a status, by a broken connection, or after the service did the work.</summary>
internal sealed class FaultyTransport(Func<int, HttpMessage, FaultyTransport.Fault?> plan) : HttpPipelineTransport
{
    private int _requests;

    public int Requests => _requests;

    public override Request CreateRequest() => HttpClientTransport.Shared.CreateRequest();

    public override void Process(HttpMessage message) => throw new NotSupportedException();

    public override async ValueTask ProcessAsync(HttpMessage message)
    {
        Fault? fault = plan(Interlocked.Increment(ref _requests), message);
        if (fault is null or { AnswerLost: true })
        {
            await HttpClientTransport.Shared.ProcessAsync(message);
        }

        if (fault is { Status: { } status })
        {
            message.Response = new FaultResponse(status, message.Request.ClientRequestId);
        }
        else if (fault is not null)
        {
            throw new RequestFailedException("Connection refused", new IOException("Connection refused"));
        }
    }

    /// <summary>Null status: the connection breaks.</summary>
    internal sealed record Fault(int? Status = null, bool AnswerLost = false);

    private sealed class FaultResponse(int status, string id) : Response
    {
        public override int Status => status;

        public override string ReasonPhrase => "as planned";

        public override Stream? ContentStream { get; set; } = new MemoryStream();

        public override string ClientRequestId { get; set; } = id;

        public override void Dispose()
        {
        }

        protected override bool ContainsHeader(string name) => false;

        protected override IEnumerable<HttpHeader> EnumerateHeaders() => [];

        protected override bool TryGetHeader(string name, [NotNullWhen(true)] out string? value)
        {
            value = null;
            return false;
        }

        protected override bool TryGetHeaderValues(string name, [NotNullWhen(true)] out IEnumerable<string>? values)
        {
            values = null;
            return false;
        }
    }
}
