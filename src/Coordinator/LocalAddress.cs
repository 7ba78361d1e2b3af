using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Configuration;
using Trainer.Contracts;

namespace Trainer.Coordinator;

/// <summary>
/// A port of this machine's loopback at which the owner's browser reaches the coordinator. It is opened when the owner asks for it,
/// and again whenever the coordinator of this home starts: an open page finds it where it was. Only sessions are let in there.
/// </summary>
internal sealed class LocalAddress(TrainerHome home, IConfigurationRoot listening) : IDisposable
{
    /// <summary>Tried first, so that a bookmark holds.</summary>
    private const int UsualPort = 7410;

    private static readonly TimeSpan s_often = TimeSpan.FromMilliseconds(20);
    private static readonly TimeSpan s_openTakes = TimeSpan.FromSeconds(5);

    private readonly SemaphoreSlim _one = new(1, 1);
    private int? _port;

    /// <summary>What Kestrel listens to besides what it was told at its start, and is told anew.</summary>
    public static IConfigurationRoot NewListening() => new ConfigurationBuilder().AddInMemoryCollection().Build();

    /// <summary>Opens the port of before, if there was one and nobody has taken it meanwhile.</summary>
    public async Task RestoreAsync(CancellationToken cancellationToken)
    {
        if (Remembered() is { } port)
        {
            await ListenAsync(port, cancellationToken);
        }
    }

    /// <param name="port">0: the open one, the one of before, the usual one, or any.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    /// <returns>Null: the port is taken.</returns>
    public async Task<Uri?> ListenAsync(int port, CancellationToken cancellationToken)
    {
        await _one.WaitAsync(cancellationToken);
        try
        {
            if (_port is { } open && (port == 0 || port == open))
            {
                return At(open);
            }
            int? free = port > 0 ? Free(port) : Remembered() is { } before && Free(before) is { } again ? again : Free(UsualPort) ?? Free(0);
            if (free is not { } chosen)
            {
                return null;
            }
            listening["Endpoints:Dashboard:Url"] = At(chosen).ToString();
            listening.Reload();
            if (!await IsOpenAsync(chosen, cancellationToken))
            {
                return null;
            }
            _port = chosen;
            await File.WriteAllTextAsync(home.DashboardPort, chosen.ToString(CultureInfo.InvariantCulture), cancellationToken);
            return At(chosen);
        }
        finally
        {
            _one.Release();
        }
    }

    public void Dispose() => _one.Dispose();

    private static Uri At(int port) => new(string.Create(CultureInfo.InvariantCulture, $"http://127.0.0.1:{port}"));

    private int? Remembered() =>
        File.Exists(home.DashboardPort) && int.TryParse(File.ReadAllText(home.DashboardPort), CultureInfo.InvariantCulture, out int port) && port is > 0 and <= ushort.MaxValue ? port : null;

    private static int? Free(int port)
    {
        try
        {
            using var listener = new TcpListener(IPAddress.Loopback, port);
            listener.Start();
            return ((IPEndPoint)listener.LocalEndpoint).Port;
        }
        catch (SocketException)
        {
            return null;
        }
    }

    private static async Task<bool> IsOpenAsync(int port, CancellationToken cancellationToken)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(s_openTakes);
        while (!limit.IsCancellationRequested)
        {
            try
            {
                using var client = new TcpClient();
                await client.ConnectAsync(IPAddress.Loopback, port, limit.Token);
                return true;
            }
            catch (SocketException)
            {
                await Task.Delay(s_often, limit.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
            catch (OperationCanceledException)
            {
                break;
            }
        }
        return false;
    }
}
