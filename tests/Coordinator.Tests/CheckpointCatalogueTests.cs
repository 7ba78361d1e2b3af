using System.Net;
using Trainer.Contracts;

namespace Coordinator.Tests;

/// <summary>What rank 0 says of its store reaches the catalogue, with its last act too, and stays there.</summary>
public sealed class CheckpointCatalogueTests : IAsyncLifetime
{
    private readonly TestHome _home = new();
    private TestCoordinator? _host;
    private CoordinatorClient? _client, _agent;

    private CoordinatorClient Client => _client!;

    public async Task InitializeAsync()
    {
        _host = await _home.StartAsync();
        _client = new CoordinatorClient(_home.Home.Socket);
        _agent = new CoordinatorClient(_home.Home.AgentSocket);
    }

    public async Task DisposeAsync()
    {
        Client.Dispose();
        _agent!.Dispose();
        await _host!.DisposeAsync();
        _home.Dispose();
    }

    [Fact]
    public async Task Heartbeats_and_the_result_fill_the_catalogue_which_agrees_with_the_job_and_outlives_the_coordinator()
    {
        JobView job = await Client.SubmitAsync(new SubmitRequest { Config = _home.Job() });
        await TestHome.UntilAsync(Client, job.Id, JobStatus.Running, 1);
        await _home.PidAsync(job.Id, 1);
        Assert.Empty((await Client.CheckpointsAsync("demo")).Checkpoints);

        await HeartbeatAsync(job.Id, 1, Held(5));
        await ListedAsync(job.Id, [(5, CheckpointStatus.Committed)]);
        await HeartbeatAsync(job.Id, 2, Held(5), Held(10));
        await ListedAsync(job.Id, [(5, CheckpointStatus.Committed), (10, CheckpointStatus.Committed)]);
        Assert.Equal(10, (await Client.GetAsync("demo")).LastCheckpointStep);
        await HeartbeatAsync(job.Id, 3, Held(10) with { Quarantined = "rank-0.safetensors is missing" });

        // The last commit is told by the result alone.
        var result = new RankResult { Outcome = RankOutcome.Succeeded, Step = 15, LastCheckpointStep = 15, Checkpoints = Report(4, Held(10) with { Quarantined = "rank-0.safetensors is missing" }, Held(15)) };
        _home.Do(job.Id, 1, System.Text.Json.JsonSerializer.Serialize(result, ContractsJson.Default.RankResult));
        await TestHome.UntilAsync(Client, job.Id, JobStatus.Succeeded, 1);
        CheckpointList list = await ListedAsync(job.Id, [(5, CheckpointStatus.Removed), (10, CheckpointStatus.Quarantined), (15, CheckpointStatus.Committed)]);
        Assert.Equal(15, (await Client.GetAsync("demo")).LastCheckpointStep);
        Assert.Equal(("/store", "rank-0.safetensors is missing"), (list.Store, list.Checkpoints[1].Reason));
        Assert.Equal(("hash-15", 1500L, 1.5, true), (list.Checkpoints[2].Manifest, list.Checkpoints[2].Bytes, list.Checkpoints[2].EvalLoss, list.Checkpoints[2].Best));

        await _host!.DisposeAsync();
        _host = await _home.StartAsync();
        Assert.Equal(list.Checkpoints.AsEnumerable(), (await Client.CheckpointsAsync(job.Id.Value)).Checkpoints);

        list = await Client.JudgeCheckpointAsync("demo", 15, new CheckpointVerdict { Attempt = 1, Damage = "flipped" });
        Assert.Equal((CheckpointStatus.Quarantined, "flipped"), (list.Checkpoints[2].Status, list.Checkpoints[2].Reason));
        list = await Client.JudgeCheckpointAsync("demo", 10, new CheckpointVerdict { Attempt = 1 });
        Assert.Equal(CheckpointStatus.Committed, list.Checkpoints[1].Status);
        Assert.NotNull(list.Checkpoints[1].VerifiedAt);
        foreach ((long step, int attempt) in new[] { (11L, 1), (15L, 2), (99999999999L, 1), (-1L, 1) })
        {
            CoordinatorException none = await Assert.ThrowsAsync<CoordinatorException>(() => Client.JudgeCheckpointAsync("demo", step, new CheckpointVerdict { Attempt = attempt }));
            Assert.Equal(HttpStatusCode.NotFound, none.Status);
        }
    }

    [Fact]
    public async Task What_a_killed_attempt_did_not_tell_the_next_one_does()
    {
        JobView job = await Client.SubmitAsync(new SubmitRequest { Config = _home.Job() });
        await TestHome.UntilAsync(Client, job.Id, JobStatus.Running, 1);
        await _home.PidAsync(job.Id, 1);
        await HeartbeatAsync(job.Id, 7, Held(5));
        await ListedAsync(job.Id, [(5, CheckpointStatus.Committed)]);
        _home.Do(job.Id, 1, "crash");
        await TestHome.UntilAsync(Client, job.Id, JobStatus.Running, 2);
        await _home.PidAsync(job.Id, 2);

        await HeartbeatAsync(job.Id, 1, attempt: 2, Held(5), Held(10) with { VerifiedAt = DateTimeOffset.UnixEpoch });
        CheckpointList list = await ListedAsync(job.Id, [(5, CheckpointStatus.Committed), (10, CheckpointStatus.Committed)]);

        Assert.Equal(DateTimeOffset.UnixEpoch, list.Checkpoints[1].VerifiedAt);
        Assert.Equal(10, (await Client.GetAsync("demo")).LastCheckpointStep);
    }

    private Task HeartbeatAsync(JobId job, int revision, params HeldCheckpoint[] held) => HeartbeatAsync(job, revision, 1, held);

    private async Task HeartbeatAsync(JobId job, int revision, int attempt, params HeldCheckpoint[] held) => await _agent!.HeartbeatAsync(job, new RankReport
    {
        Attempt = attempt, Pid = 1, Phase = RankPhase.Training, Step = held[^1].Step, LastCheckpointStep = held[^1].Step, Checkpoints = Report(revision, held),
    });

    private async Task<CheckpointList> ListedAsync(JobId job, (int, CheckpointStatus)[] expected)
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(10));
        while (true)
        {
            CheckpointList list = await Client.CheckpointsAsync(job.Value, limit.Token);
            if (list.Checkpoints.Select(entry => (entry.Step, entry.Status)).SequenceEqual(expected))
            {
                return list;
            }
            await Task.Delay(20, limit.Token);
        }
    }

    private static CheckpointReport Report(int revision, params HeldCheckpoint[] held) => new() { Revision = revision, Store = "/store", Held = [.. held.Reverse()] };

    private static HeldCheckpoint Held(int step) => new()
    {
        Step = step, Attempt = 1, CommittedAt = DateTimeOffset.UnixEpoch, Bytes = step * 100, Manifest = $"hash-{step}", EvalLoss = step / 10.0,
    };
}
