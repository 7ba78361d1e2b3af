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
    public string Stdout => StdoutOf(0);
    public string Stderr => StderrOf(0);

    public string StdoutOf(int rank) => Path.Combine(Directory, $"stdout{Suffix(rank)}.log");

    public string StderrOf(int rank) => Path.Combine(Directory, $"stderr{Suffix(rank)}.log");

    /// <summary>What the threads of a rank that hung were doing.</summary>
    public string StacksOf(int rank) => Path.Combine(Directory, $"stacks{Suffix(rank)}.txt");

    /// <summary>The <see cref="RankResult"/>, written as the rank's last act.</summary>
    public string Result => ResultOf(0);

    public string ResultOf(int rank) => Path.Combine(Directory, $"result{Suffix(rank)}.json");

    /// <summary>Written by the agent before it starts the rank, which it does once; then pid and start time of its process.</summary>
    public string StartedOf(int rank) => Path.Combine(Directory, $"started{Suffix(rank)}");

    /// <summary>Empty; written by the agent when the coordinator has every byte of an ended rank's logs.</summary>
    public string ShippedOf(int rank) => Path.Combine(Directory, $"shipped{Suffix(rank)}");

    /// <summary>Empty; written by the coordinator when all that an ended rank wrote lies in the job's store, or the job names none.</summary>
    public string StoredOf(int rank) => Path.Combine(Directory, $"stored{Suffix(rank)}");

    /// <summary>Rank 0 has the plain names.</summary>
    private static string Suffix(int rank) => rank == 0 ? "" : $"-{rank}";
}
