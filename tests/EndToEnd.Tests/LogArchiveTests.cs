using Trainer.Contracts;

namespace Trainer.EndToEnd.Tests;

/// <summary>What a job wrote is read from its store when its folder is gone.</summary>
public sealed class LogArchiveTests
{
    [Fact]
    public async Task Logs_and_metrics_of_a_job_that_names_a_store_outlive_its_folder()
    {
        using var place = new Workplace();
        JobView job = await place.SubmitAsync("--set", "training.steps=12", "--set", $"checkpoint.store={place.PathOf("store")}");
        job = await place.FinishAsync(job.Id);
        Assert.True(job.Status is JobStatus.Succeeded, job.Reason);
        string log = await place.DoAsync("logs", "tiny"), curve = await place.DoAsync("metrics", "tiny", "-o", "csv");
        Assert.Contains("succeeded at step 12", log, StringComparison.Ordinal);
        Assert.Contains("\n12,", curve, StringComparison.Ordinal);

        var files = new JobFiles(job.Directory);
        await StoredAsync(place, job.Id, "stdout", File.ReadAllBytes(files.Attempt(1).Stdout));
        await StoredAsync(place, job.Id, "metrics", File.ReadAllBytes(files.Metrics));
        Directory.Delete(job.Directory, recursive: true);
        Assert.Equal(log, await place.DoAsync("logs", "tiny"));
        Assert.Equal(curve, await place.DoAsync("metrics", "tiny", "-o", "csv"));

        // A coordinator that starts anew fetches them again.
        Directory.Delete(job.Directory, recursive: true);
        await place.DoAsync("stop");
        await place.SubmitAsync("--name", "more", "--paused");
        Assert.Equal(log, await place.DoAsync("logs", "tiny"));
    }

    private static async Task StoredAsync(Workplace place, JobId job, string stream, byte[] bytes)
    {
        string chunk = place.PathOf($"store/logs/{job}/attempt-1/rank-0.{stream}/000000-{bytes.Length}");
        await Workplace.UntilAsync(() => File.Exists(chunk), chunk);
        Assert.Equal(bytes, File.ReadAllBytes(chunk));
    }
}
