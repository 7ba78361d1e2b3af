using System.Collections.Concurrent;
using Trainer.Contracts;

namespace Trainer.EndToEnd.Tests;

/// <summary>Trainings that nothing disturbed, run once for all tests.</summary>
internal sealed class Undisturbed
{
    /// <summary>Options of submit for the three trainings.</summary>
    public static readonly string[] Full = [];
    public static readonly string[] Lora =
        ["--set", "lora.rank=4", "--set", "lora.dropout=0.1", "--set", "model.recompute=true", "--set", "output.merge=true"];
    public static readonly string[] Accumulated = ["--set", "training.gradient_accumulation=2", "--set", "data.max_length=96"];

    /// <summary>Steps of <see cref="Long"/>: time enough for an order to reach the rank.</summary>
    public const int LongSteps = 120;
    public static readonly string[] Long = ["--set", $"training.steps={LongSteps}"];

    private static readonly ConcurrentDictionary<string[], Lazy<Task<Undisturbed>>> s_runs = [];

    private Undisturbed(Workplace place, JobView job, TrainingTrace trace)
    {
        Place = place;
        Job = job;
        Trace = trace;
    }

    /// <summary>For commands that only read.</summary>
    public Workplace Place { get; }

    public JobView Job { get; }

    public JobFiles Files => new(Job.Directory);

    public TrainingTrace Trace { get; }

    public static Task<Undisturbed> OfAsync(string[] options) =>
        s_runs.GetOrAdd(options, _ => new Lazy<Task<Undisturbed>>(() => RunAsync(options))).Value;

    private static async Task<Undisturbed> RunAsync(string[] options)
    {
        var place = new Workplace();
        AppDomain.CurrentDomain.ProcessExit += (_, _) => place.Dispose();
        await place.DoAsync(["submit", TinyJob.File, "--follow", .. options]);
        JobView job = await place.StatusAsync("tiny");
        Assert.Equal((JobStatus.Succeeded, 1), (job.Status, job.Attempt));
        await place.DoAsync("stop");
        return new Undisturbed(place, job, await TrainingTrace.ReadAsync(new JobFiles(job.Directory)));
    }
}
