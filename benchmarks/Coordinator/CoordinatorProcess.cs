using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Trainer.Contracts;

namespace Trainer.Benchmarks;

/// <summary>A real "trainer serve --no-worker" in a folder of its own, that asks for tokens over HTTP. Ends with this object.</summary>
internal sealed class CoordinatorProcess : IAsyncDisposable
{
    private static readonly TimeSpan s_startTakes = TimeSpan.FromSeconds(30);

    private readonly Process _process;
    private readonly string _home;
    private readonly string _url;

    private CoordinatorProcess(Process process, string home, string url)
    {
        _process = process;
        _home = home;
        _url = url;
    }

    /// <summary>Most memory that it ever had resident.</summary>
    public double PeakMiB => File.ReadLines($"/proc/{_process.Id}/status").First(line => line.StartsWith("VmHWM:", StringComparison.Ordinal))
        .Split(' ', StringSplitOptions.RemoveEmptyEntries) is [_, var kilobytes, ..] ? double.Parse(kilobytes, CultureInfo.InvariantCulture) / 1024 : 0;

    public double CpuSeconds
    {
        get
        {
            _process.Refresh();
            return _process.TotalProcessorTime.TotalSeconds;
        }
    }

    public static async Task<CoordinatorProcess> StartAsync()
    {
        string home = Directory.CreateTempSubdirectory("bench-").FullName;
        string tokens = Path.Combine(home, "tokens.json");
        AccessEntry[] entries = [Entry("user", "load"), Entry("worker", null)];
        await File.WriteAllTextAsync(tokens, JsonSerializer.Serialize(entries, ContractsJson.Default.AccessEntryArray));
        string url = FormattableString.Invariant($"http://127.0.0.1:{FreePort()}");
        ProcessStartInfo command = TrainerProgram.Command(home, "serve", "--no-worker", "--listen", url, "--tokens", tokens);
        // Its log goes to a file, as a service's does: a terminal would be slower.
        var logged = new ProcessStartInfo("/bin/sh", ["-c", "exec \"$0\" \"$@\" > log.txt 2>&1", command.FileName, .. command.ArgumentList]) { WorkingDirectory = home };
        foreach ((string name, string? value) in command.Environment)
        {
            logged.Environment[name] = value;
        }
        Process process = Process.Start(logged)!;
        var coordinator = new CoordinatorProcess(process, home, url);
        long start = Stopwatch.GetTimestamp();
        using CoordinatorClient client = coordinator.Client("user");
        while (true)
        {
            try
            {
                await client.InfoAsync();
                return coordinator;
            }
            catch (CoordinatorException) when (Stopwatch.GetElapsedTime(start) < s_startTakes && !process.HasExited)
            {
                await Task.Delay(50);
            }
        }
    }

    /// <param name="role">user or worker, which is its token too.</param>
    public CoordinatorClient Client(string role) => CoordinatorClient.At(_url, role);

    public async ValueTask DisposeAsync()
    {
        _process.Kill();
        await _process.WaitForExitAsync();
        _process.Dispose();
        Directory.Delete(_home, recursive: true);
    }

    private static AccessEntry Entry(string role, string? project) =>
        new() { Sha256 = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(role))), Role = role, Project = project };

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
