using System.Net;
using System.Net.Sockets;

namespace Trainer.EndToEnd.Tests;

/// <summary>
/// A TCP port of 127.0.0.1 for a server that is started next. Not one that the system would give to whoever asks for any: until the
/// server listens, another program's connection, or the very one that looks whether it listens, could be given it.
/// </summary>
internal static class FreePort
{
    private const int Lowest = 20_000;
    private const int Count = 12_000;

    public static int Take()
    {
        while (true)
        {
            int port = Lowest + Random.Shared.Next(Count);
            try
            {
                using var listener = new TcpListener(IPAddress.Loopback, port);
                listener.Start();
                return port;
            }
            catch (SocketException error) when (error.SocketErrorCode is SocketError.AddressAlreadyInUse)
            {
                // Another one.
            }
        }
    }
}
