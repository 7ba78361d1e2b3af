using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Trainer.EndToEnd.Tests;

namespace Trainer.Worker.Tests;

/// <summary>
/// The Azure Blob emulator on a free port, for the tests of one collection. It is a fixture: tests fail with the cure when it is
/// not installed.
/// </summary>
public sealed class Azurite : IAsyncLifetime
{
    public const string Collection = "azurite";
    // The emulator's published account; no secret.
    private const string Account = "devstoreaccount1";
    private const string Key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    private Process? _process;
    private readonly int _port = FreePort.Take();

    /// <summary>Where it keeps what it is given, also while it does not run; null: in memory.</summary>
    public string? Folder { get; init; }

    public string ConnectionString =>
        $"DefaultEndpointsProtocol=http;AccountName={Account};AccountKey={Key};BlobEndpoint=http://127.0.0.1:{_port}/{Account};";

    /// <summary>Starts it, or starts it again on the same port.</summary>
    public async Task InitializeAsync()
    {
        string program = Repository.File("node_modules", ".bin", "azurite-blob");
        if (!File.Exists(program))
        {
            throw new InvalidOperationException($"{program} is missing: run `npm ci` at the root of the repository");
        }

        // The shell ends the emulator when its input closes, so it never outlives a killed test run.
        string command = $"""
            '{program}' --blobHost 127.0.0.1 --blobPort {_port} {(Folder is null ? "--inMemoryPersistence" : $"--location '{Folder}'")} --skipApiVersionCheck --silent --disableTelemetry &
            pid=$!; cat > /dev/null; kill $pid; wait $pid
            """;
        _process = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", command]) { RedirectStandardInput = true, UseShellExecute = false })!;
        await WaitUntilListeningAsync(_port);
    }

    /// <summary>Ends it; another start finds what is in its folder.</summary>
    public async Task DisposeAsync()
    {
        if (_process is not null)
        {
            _process.StandardInput.Close();
            await _process.WaitForExitAsync();
            _process.Dispose();
            _process = null;
        }
    }

    private static async Task WaitUntilListeningAsync(int port)
    {
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            try
            {
                using TcpClient client = new();
                await client.ConnectAsync(IPAddress.Loopback, port);
                return;
            }
            catch (SocketException) when (Stopwatch.GetElapsedTime(start) < TimeSpan.FromSeconds(60))
            {
                await Task.Delay(100);
            }
        }
    }
}

[CollectionDefinition(Azurite.Collection)]
public sealed class AzuriteCollection : ICollectionFixture<Azurite>;
