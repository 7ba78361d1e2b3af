using Microsoft.Data.Sqlite;
using Trainer.Contracts;
using Trainer.Worker.Tests;

namespace Trainer.EndToEnd.Tests;

/// <summary>Something that is done to a cluster while it trains, and what must come of it.</summary>
/// <param name="Strike">Done at the step; what must hold meanwhile is asserted in it.</param>
/// <param name="Attempts">How many the training takes.</param>
/// <param name="Events">The history tells these.</param>
internal sealed record Fault(Func<FaultRun, Task> Strike, int Attempts, params string[] Events)
{
    /// <summary>Steps of a training that ends soon after a fault that is over at once, of one that outlives 10 s, and of one that outlives a lease.</summary>
    private const int Short = 80, Medium = 240, Long = 330;

    public int Ranks { get; init; } = 3;
    public int Agents { get; init; } = 3;
    public int Slots { get; init; } = 1;
    public int Steps { get; init; } = Short;

    /// <summary>Done before anything is started.</summary>
    public Func<FaultRun, Task>? Prepare { get; init; }

    /// <summary>Beginning with the history entry that shows the fault was noticed.</summary>
    public string? Noticed { get; init; }

    /// <summary>From the strike to that entry, in seconds.</summary>
    public double NoticedWithin { get; init; }

    /// <summary>Every run of the tests tries it.</summary>
    public bool IsQuick { get; init; }

    /// <summary>No step is trained twice.</summary>
    public bool LosesNoStep { get; init; }

    public static IReadOnlyDictionary<string, Fault> All { get; } = new Dictionary<string, Fault>
    {
        ["a rank is killed"] = new(run => run.KillRank("w2"), 2, "ended without a result", "SIGKILL", "attempt 2 starts")
        {
            Noticed = "attempt 1 ended", NoticedWithin = 5,
        },

        ["an agent is killed and comes back"] = new(async run =>
        {
            run.Cluster.Kill("w2");
            await run.UntilToldAsync("node w2 does not answer");
            run.Cluster.StartAgent("w2", 1);
        }, 1, "does not answer", "answers again")
        {
            Steps = Medium, Noticed = "node w2 does not answer", NoticedWithin = 10,
        },

        ["the coordinator is killed and comes back"] = new(async run =>
        {
            run.Cluster.Kill("c");
            await Task.Delay(3000);
            run.Cluster.StartCoordinator();
        }, 1, "the coordinator was started again") { Steps = Medium },

        ["everything is killed at once and comes back"] = new(run => run.KillEverythingAsync(), 2, "the coordinator was started again", "ended", "attempt 2 starts")
        {
            IsQuick = true,
        },

        ["a rank hangs"] = new(run =>
        {
            LinuxProcesses.Signal(run.Cluster.Ranks("w2").Values.Single(), LinuxProcesses.Stop);
            return Task.CompletedTask;
        }, 2, "no sign of life", "taking the stacks", "attempt 2 starts")
        {
            Noticed = "rank 1 on w2", NoticedWithin = 60,
        },

        ["a node is drained"] = new(run =>
        {
            LinuxProcesses.Signal(run.Cluster.PidOf("w1"), LinuxProcesses.Terminate);
            return Task.CompletedTask;
        }, 2, "is drained", "stopped, goes on", "attempt 2 starts")
        {
            Agents = 4, LosesNoStep = true, Noticed = "node w1 is drained", NoticedWithin = 5,
        },

        ["an agent is cut off for 20 s"] = new(async run =>
        {
            run.Cluster.LinkOf("w3").Cut();
            await Task.Delay(TimeSpan.FromSeconds(20));
            await run.StillTrainsAsync();
            run.Cluster.LinkOf("w3").Mend();
        }, 1, "node w3 does not answer", "node w3 answers again")
        {
            Steps = Long, Noticed = "node w3 does not answer", NoticedWithin = 10,
        },

        // All ranks are on it: they go on with it, and only the fence of their checkpoints tells them that they were replaced.
        ["the only node of a training is cut off for good"] = new(async run =>
        {
            run.Cluster.LinkOf("w1").Cut();
            await run.UntilToldAsync("attempt 2 starts on w2");
            await Cluster.UntilAsync(() => Task.FromResult(run.Cluster.Ranks("w1").Count == 0), "the ranks that were cut off to end by themselves");
            Assert.Contains("this attempt has been replaced", run.LogOf("w1", 1, 0), StringComparison.Ordinal);
        }, 2, "node w1 does not answer", "node w1 was lost", "attempt 2 starts on w2")
        {
            Agents = 2, Slots = 3, Steps = Long, Noticed = "node w1 does not answer", NoticedWithin = 10,
        },

        ["the coordinator's database is locked for 10 s"] = new(async run =>
        {
            await using var other = new SqliteConnection($"Data Source={run.Cluster.CoordinatorHome.Database};Pooling=False");
            await other.OpenAsync();
            await using var command = other.CreateCommand();
            command.CommandText = "BEGIN EXCLUSIVE";
            await command.ExecuteNonQueryAsync();
            int before = run.StepOf("w1", 1);
            for (int second = 0; second < 10; second++)
            {
                await Task.Delay(1000);
                Assert.All(await run.Cluster.NodesAsync(), node => Assert.Equal("ready", node.State));
            }
            Assert.True(run.StepOf("w1", 1) > before, "the training stood still");
            command.CommandText = "ROLLBACK";
            await command.ExecuteNonQueryAsync();
        }, 1, "the coordinator's database was locked or slow") { Steps = Medium },

        ["the blob store is down for 30 s"] = new(async run =>
        {
            await run.Blobs!.DisposeAsync();
            int before = run.StepOf("w1", 1);
            await Task.Delay(TimeSpan.FromSeconds(30));
            Assert.InRange(run.StepOf("w1", 1), before + (2 * TinyJob.CheckpointEvery), Medium - 1);
            await run.Blobs.InitializeAsync();
        }, 1, "azblob://faults/run does not answer", "over: rank 0 on w1: azblob://faults/run")
        {
            Steps = Medium,
            Prepare = async run =>
            {
                run.Blobs = new Azurite { Folder = Directory.CreateDirectory(run.Cluster.Place.PathOf("blobs")).FullName };
                await run.Blobs.InitializeAsync();
                run.Cluster.Place.Environment["AZURE_STORAGE_CONNECTION_STRING"] = run.Blobs.ConnectionString;
                run.Cluster.Store = "azblob://faults/run";
            },
        },

        ["the disk of rank 0's log is full for 10 s"] = new(run => run.FillDiskAsync("w1", "rank 0 on w1: the"), 1, "cannot be written", "over: rank 0 on w1")
        {
            Steps = Medium, Prepare = run => run.UseSmallDisk(run.Cluster.HomeOf("w1").Jobs),
        },

        ["the disk of the coordinator's logs is full for 10 s"] = new(run => run.FillDiskAsync("w1", "the coordinator cannot store logs"), 1, "the coordinator cannot store logs", "over: node w")
        {
            Steps = Medium, Prepare = run => run.UseSmallDisk(run.Cluster.CoordinatorHome.Jobs),
        },

        ["coordinator and agents are gone for more than a minute"] = new(run => run.OrphanRanksAsync(), 2, "its agent is gone", "attempt 2 starts")
        {
            Steps = 500,
        },

        ["one of six ranks on three agents is killed"] = new(run => run.KillRank("w2"), 2, "ended without a result", "attempt 2 starts")
        {
            Ranks = 6, Slots = 2, Noticed = "attempt 1 ended", NoticedWithin = 5,
        },
    };
}
