using System.Net;
using System.Net.Sockets;

namespace Trainer.EndToEnd.Tests;

/// <summary>
/// The way to a port of this machine, which can be cut: then nothing arrives, neither bytes nor the news that a connection was opened or
/// closed, as when a network drops every packet. What was sent meanwhile arrives once it is mended.
/// </summary>
internal sealed class NetworkLink : IDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _ended = new();
    private readonly int _target;
    private volatile TaskCompletionSource _whole = new();

    public NetworkLink(int target)
    {
        _target = target;
        _whole.SetResult();
        _listener.Start();
        Url = FormattableString.Invariant($"http://127.0.0.1:{((IPEndPoint)_listener.LocalEndpoint).Port}");
        _ = AcceptAsync();
    }

    public string Url { get; }

    public void Cut() => _whole = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);

    public void Mend() => _whole.TrySetResult();

    public void Dispose()
    {
        _ended.Cancel();
        _listener.Dispose();
    }

    private async Task AcceptAsync()
    {
        while (!_ended.IsCancellationRequested)
        {
            _ = CarryAsync(await _listener.AcceptSocketAsync(_ended.Token));
        }
    }

    private async Task CarryAsync(Socket near)
    {
        using var far = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        using (near)
        {
            near.NoDelay = true;
            try
            {
                await PassAsync();
                await far.ConnectAsync(IPAddress.Loopback, _target, _ended.Token);
                // Whichever side ends first ends both.
                await Task.WhenAny(CarryAsync(near, far), CarryAsync(far, near));
            }
            catch (Exception error) when (error is SocketException or OperationCanceledException)
            {
                // Nobody listens there, or the test is over.
            }
        }
    }

    private async Task CarryAsync(Socket from, Socket to)
    {
        byte[] buffer = new byte[64 << 10];
        try
        {
            int count;
            do
            {
                count = await from.ReceiveAsync(buffer, SocketFlags.None, _ended.Token);
                await PassAsync();
                await to.SendAsync(buffer.AsMemory(0, count), SocketFlags.None, _ended.Token);
            }
            while (count > 0);
        }
        catch (Exception error) when (error is SocketException or ObjectDisposedException or OperationCanceledException)
        {
            // A reset is an end like any other, and it too must pass.
            await PassAsync();
        }
    }

    private Task PassAsync() => _whole.Task.WaitAsync(_ended.Token);
}
