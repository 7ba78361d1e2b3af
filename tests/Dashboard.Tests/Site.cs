using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Trainer.Contracts;
using Trainer.EndToEnd.Tests;

namespace Dashboard.Tests;

/// <summary>
/// "trainer serve" as a process of its own, on a port of this machine, with the tokens "alpha" and "beta" (users of those projects) and
/// "admin". Its worker has one CPU slot.
/// </summary>
internal sealed class Site : IAsyncDisposable
{
    private readonly List<IDisposable> _clients = [];
    private TrainerProgram? _server;

    private Site(Uri address) => Address = address;

    public Workplace Place { get; } = new();

    public Uri Address { get; }

    public int Pid => _server!.Pid;

    public static async Task<Site> StartAsync()
    {
        var address = new Uri(string.Create(CultureInfo.InvariantCulture, $"http://127.0.0.1:{FreePort.Take()}/"));
        var site = new Site(address);
        AccessEntry[] entries = [Entry("alpha", "user", "alpha"), Entry("beta", "user", "beta"), Entry("admin", "admin", null)];
        await File.WriteAllTextAsync(site.Place.PathOf("tokens.json"), JsonSerializer.Serialize(entries, ContractsJson.Default.AccessEntryArray));
        await site.ServeAsync();
        return site;
    }

    /// <summary>Starts the coordinator, again when it was killed.</summary>
    public async Task ServeAsync()
    {
        _server = Place.Start("serve", "--listen", Address.ToString().TrimEnd('/'), "--tokens", "tokens.json");
        using var http = new HttpClient();
        for (int i = 0; ; i++)
        {
            try
            {
                if ((await http.GetAsync(new Uri(Address, "ready"))).IsSuccessStatusCode)
                {
                    return;
                }
            }
            catch (HttpRequestException) when (i < 600)
            {
                // Not yet.
            }
            if (_server.HasExited)
            {
                throw new InvalidOperationException($"the coordinator did not start: {(await _server.WaitAsync()).Everything}");
            }
            await Task.Delay(50);
        }
    }

    public void KillServer() => LinuxProcesses.Signal(Pid, LinuxProcesses.Kill);

    public CoordinatorClient Client(string token = "alpha")
    {
        CoordinatorClient client = CoordinatorClient.At(Address.ToString(), token);
        _clients.Add(client);
        return client;
    }

    public JobConfig Job(string name, params string[] sets) => JobConfigFile.Load(Place.PathOf(TinyJob.File), [$"name={name}", .. sets]);

    public Task<JobView> SubmitAsync(string name, params string[] sets) => SubmitAsync("alpha", paused: false, name, sets);

    public Task<JobView> SubmitAsync(string token, bool paused, string name, params string[] sets) =>
        Client(token).SubmitAsync(new SubmitRequest { Config = Job(name, sets), Paused = paused });

    public async Task<JobView> UntilAsync(JobId job, Func<JobView, bool> holds)
    {
        using CoordinatorClient client = CoordinatorClient.At(Address.ToString(), "admin");
        using var limit = new CancellationTokenSource(TrainerProgram.Patience);
        JobView? view = null;
        try
        {
            while (true)
            {
                view = await client.GetAsync(job.Value, limit.Token);
                if (holds(view))
                {
                    return view;
                }
                await Task.Delay(50, limit.Token);
            }
        }
        catch (OperationCanceledException)
        {
            throw new TimeoutException($"{job} is {view?.Status} at step {view?.Step}: {view?.Reason}");
        }
    }

    public Task<JobView> UntilAsync(JobId job, JobStatus status) => UntilAsync(job, view => view.Status == status);

    /// <summary>Ends what holds or waits for a slot, whatever its ranks are at. Paused jobs stay.</summary>
    public async Task EndJobsAsync()
    {
        using CoordinatorClient client = CoordinatorClient.At(Address.ToString(), "admin");
        foreach (JobView job in (await client.ListAsync()).Jobs.Where(job => !job.Status.IsTerminal() && job.Status is not JobStatus.Paused))
        {
            await client.CancelAsync(job.Id.Value);
            foreach (int rank in Workplace.Ranks(Place.Files.Job(job.Id)))
            {
                LinuxProcesses.Signal(rank, LinuxProcesses.Kill);
            }
            await UntilAsync(job.Id, view => view.Status.IsTerminal());
        }
    }

    public ValueTask DisposeAsync()
    {
        _clients.ForEach(client => client.Dispose());
        Place.Dispose();
        _server?.Dispose();
        return ValueTask.CompletedTask;
    }

    private static AccessEntry Entry(string token, string role, string? project) =>
        new() { Sha256 = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(token))), Role = role, Project = project };
}
