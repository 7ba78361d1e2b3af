using System.Net;
using System.Net.Sockets;
using System.Text;
using Trainer.Contracts;

namespace Contracts.Tests;

public sealed class CoordinatorClientTests
{
    [Theory]
    [InlineData("secret\nb")]
    [InlineData("secret b")]
    [InlineData("secrét")]
    [InlineData("secret\0")]
    public void A_token_that_no_header_can_hold_is_refused_and_not_told(string token)
    {
        ConfigException error = Assert.Throws<ConfigException>(() => CoordinatorClient.At("http://127.0.0.1:1", token));
        Assert.StartsWith("TRAINER_TOKEN is no token", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("secr", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_line_end_behind_a_token_does_not_matter() => CoordinatorClient.At("http://127.0.0.1:1", "trn_00\n").Dispose();

    /// <summary>A port of the other protocol closes the connection, or answers what is no TLS.</summary>
    [Theory]
    [InlineData("http", "", "https://")]
    [InlineData("https", "HTTP/1.1 400 Bad Request\r\n\r\n", "http://")]
    public async Task A_port_that_speaks_the_other_protocol_is_told(string scheme, string answer, string cure)
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        using var over = new CancellationTokenSource();
        Task serving = ServeAsync();
        using var client = CoordinatorClient.At($"{scheme}://{listener.LocalEndpoint}");
        CoordinatorException error = await Assert.ThrowsAsync<CoordinatorException>(() => client.InfoAsync());
        await over.CancelAsync();
        await Task.WhenAny(serving);
        Assert.Null(error.Status);
        Assert.EndsWith($"name it with {cure}", error.Message, StringComparison.Ordinal);

        async Task ServeAsync()
        {
            // A client tries again when a connection ends without an answer.
            while (true)
            {
                using TcpClient peer = await listener.AcceptTcpClientAsync(over.Token);
                await peer.GetStream().ReadAtLeastAsync(new byte[4096], 1, throwOnEndOfStream: false, over.Token);
                await peer.GetStream().WriteAsync(Encoding.ASCII.GetBytes(answer), over.Token);
            }
        }
    }
}
