namespace Trainer.Contracts;

/// <summary>Where one job keeps its files.</summary>
public sealed record JobFiles(string Directory)
{
    /// <summary>The <see cref="JobConfig"/> as canonical JSON.</summary>
    public string Config => Path.Combine(Directory, "config.json");

    /// <summary>Prepared data.</summary>
    public string Data => Path.Combine(Directory, "data");

    /// <summary>One JSON object a report.</summary>
    public string Metrics => Path.Combine(Directory, "metrics.jsonl");

    public string TensorBoard => Path.Combine(Directory, "tensorboard");

    /// <summary>Generated texts, one JSON object each.</summary>
    public string Samples => Path.Combine(Directory, "samples.jsonl");

    public string Checkpoints => Path.Combine(Directory, "checkpoints");

    /// <summary>The trained model as a Hugging Face snapshot.</summary>
    public string Model => Path.Combine(Directory, "model");

    public AttemptFiles Attempt(int attempt) => new(Path.Combine(Directory, $"attempt-{attempt}"));
}

/// <summary>Where one attempt of a job keeps its files.</summary>
public sealed record AttemptFiles(string Directory)
{
    public string Stdout => Path.Combine(Directory, "stdout.log");
    public string Stderr => Path.Combine(Directory, "stderr.log");

    /// <summary>The <see cref="RankResult"/>, written as the rank's last act.</summary>
    public string Result => Path.Combine(Directory, "result.json");

    /// <summary>The <see cref="RankResult"/> of one of several ranks: <see cref="Result"/> is that of rank 0.</summary>
    public string ResultOf(int rank) => rank == 0 ? Result : Path.Combine(Directory, $"result-{rank}.json");
}
