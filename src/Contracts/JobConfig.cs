using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;

namespace Trainer.Contracts;

/// <summary>
/// A fine-tuning job as one value: everything that decides what is trained. In YAML the keys are the property names in
/// snake_case; JobConfigFile reads it strictly. Host settings (directories, ports) are not part of it.
/// </summary>
public sealed record JobConfig
{
    /// <summary>1 to 63 characters: lower-case letters, digits, '-', '.', '_'; starts with a letter or digit.</summary>
    public required string Name { get; init; }

    /// <summary>Decides initialisation, data order, dropout and sampling.</summary>
    [Range(0, int.MaxValue)]
    public int Seed { get; init; } = 42;

    /// <summary>Larger runs earlier.</summary>
    [Range(-1000, 1000)]
    public int Priority { get; init; }

    public required ModelConfig Model { get; init; }
    public required DataConfig Data { get; init; }
    public LoraConfig? Lora { get; init; }
    public TrainingConfig Training { get; init; } = new();
    public OptimizerConfig Optimizer { get; init; } = new();
    public EvaluationConfig Evaluation { get; init; } = new();
    public SamplesConfig Samples { get; init; } = new();
    public CheckpointConfig Checkpoint { get; init; } = new();
    public OutputConfig Output { get; init; } = new();
    public ResourcesConfig Resources { get; init; } = new();
}

public sealed record ModelConfig
{
    /// <summary>Hugging Face snapshot: config.json, *.safetensors and tokenizer.json. Either this or <see cref="Config"/>.</summary>
    public string? Path { get; init; }

    /// <summary>A Hugging Face config.json; the weights are initialised at random from the job's seed.</summary>
    public string? Config { get; init; }

    /// <summary>Directory with tokenizer.json. Default: <see cref="Path"/>.</summary>
    public string? Tokenizer { get; init; }

    public DType Dtype { get; init; } = DType.Auto;
    public AttentionKind Attention { get; init; } = AttentionKind.Auto;

    /// <summary>Keeps only each block's input and computes the block again in backward.</summary>
    public bool Recompute { get; init; }

    public DeviceKind Device { get; init; } = DeviceKind.Auto;
}

/// <summary>Auto: bfloat16 on a GPU, float32 on a CPU.</summary>
public enum DType { Auto, Float32, Bfloat16 }

public enum AttentionKind { Auto, Flash, Sdpa, Math }

public enum DeviceKind { Auto, Cpu, Cuda }

public sealed record DataConfig
{
    public required IReadOnlyList<DatasetConfig> Train { get; init; }

    /// <summary>Held-out data. Either this, or a share of <see cref="Train"/> by <see cref="EvalFraction"/>.</summary>
    public IReadOnlyList<DatasetConfig> Eval { get; init; } = [];

    /// <summary>Share of the training documents held out, chosen by the seed, in [0, 0.5].</summary>
    [Range(0.0, 0.5)]
    public double EvalFraction { get; init; }

    /// <summary>Tokens of the longest document; see <see cref="Overlong"/>.</summary>
    [Range(2, 1 << 20)]
    public int MaxLength { get; init; } = 2048;

    public OverlongPolicy Overlong { get; init; } = OverlongPolicy.Truncate;

    /// <summary>
    /// Auto: the model's family decides (Qwen3: qwen3; the first Qwen: chatml, with its system message; else qwen2.5), and what its own chat
    /// template says to conversations that bring no system message.
    /// </summary>
    public TemplateKind Template { get; init; } = TemplateKind.Auto;

    /// <summary>Also trains on system, user and tool turns.</summary>
    public bool TrainOnPrompt { get; init; }

    /// <summary>Trains on the last assistant turn only.</summary>
    public bool MaskHistory { get; init; }

    /// <summary>System message of conversations that bring none; "": they get none. Null: the template's own default.</summary>
    public string? System { get; init; }
}

public enum OverlongPolicy { Truncate, Drop, Error }

public enum TemplateKind
{
    Auto,

    [JsonStringEnumMemberName("qwen2.5")]
    Qwen25,

    Qwen3,
    Chatml,
}

public sealed record DatasetConfig
{
    /// <summary>A JSONL file, or gzipped JSONL (*.gz).</summary>
    public required string Path { get; init; }

    public DatasetFormat Format { get; init; } = DatasetFormat.Auto;

    /// <summary>Our field name to the file's, e.g. <c>{prompt: question, completion: answer}</c>.</summary>
    public IReadOnlyDictionary<string, string> Mapping { get; init; } = new Dictionary<string, string>();

    /// <summary>Uses the first N documents only.</summary>
    [Range(1, int.MaxValue)]
    public int? Limit { get; init; }
}

/// <summary>Auto: told from the fields of the first document (after mapping).</summary>
public enum DatasetFormat { Auto, Messages, Sharegpt, Alpaca, Completion, Text }

/// <summary>Low-rank adapters; the base weights stay frozen.</summary>
public sealed record LoraConfig
{
    [Range(1, 4096)]
    public int Rank { get; init; } = 16;
    [Range(0.0, 1e6, MinimumIsExclusive = true)]
    public double Alpha { get; init; } = 32;
    [Range(0.0, 1.0, MaximumIsExclusive = true)]
    public double Dropout { get; init; }

    /// <summary>Scales by alpha / sqrt(rank) instead of alpha / rank.</summary>
    public bool Rslora { get; init; }

    /// <summary>Names of linear layers, or the one entry "all-linear".</summary>
    public IReadOnlyList<string> TargetModules { get; init; } = ["all-linear"];
}

public sealed record TrainingConfig
{
    /// <summary>Optimizer steps. Either this or <see cref="Epochs"/>; with neither, 1 epoch.</summary>
    [Range(1, int.MaxValue)]
    public int? Steps { get; init; }

    [Range(0.0, 100_000.0, MinimumIsExclusive = true)]
    public double? Epochs { get; init; }

    /// <summary>Tokens of one packed micro-batch, at least data.max_length.</summary>
    [Range(2, 1 << 24)]
    public int BatchTokens { get; init; } = 4096;

    /// <summary>Documents of one micro-batch at most. Null: as many as fit.</summary>
    [Range(1, 1 << 20)]
    public int? BatchDocuments { get; init; }

    /// <summary>Micro-batches of one optimizer step on each rank.</summary>
    [Range(1, 1 << 20)]
    public int GradientAccumulation { get; init; } = 1;

    /// <summary>CPU threads of a rank. Null: the cores of its machine, divided by the machine's slots.</summary>
    [Range(1, 4096)]
    public int? Threads { get; init; }

    /// <summary>The same bits in every run, also after a resume. False lets GPU kernels add up in any order, which is faster; CPUs know one order.</summary>
    public bool Deterministic { get; init; } = true;

    /// <summary>Steps between two reports (loss, tokens/s).</summary>
    [Range(1, int.MaxValue)]
    public int ReportEvery { get; init; } = 1;
}

public sealed record OptimizerConfig
{
    [Range(0.0, 100.0, MinimumIsExclusive = true)]
    public double LearningRate { get; init; } = 1e-5;
    [Range(0.0, 1.0, MaximumIsExclusive = true)]
    public double Beta1 { get; init; } = 0.9;
    [Range(0.0, 1.0, MaximumIsExclusive = true)]
    public double Beta2 { get; init; } = 0.95;
    [Range(0.0, 1.0, MinimumIsExclusive = true)]
    public double Epsilon { get; init; } = 1e-8;

    /// <summary>Decoupled weight decay on every trained parameter.</summary>
    [Range(0.0, 100.0)]
    public double WeightDecay { get; init; } = 0.1;

    /// <summary>Global L2 norm above which gradients are scaled down. 0 turns clipping off.</summary>
    [Range(0.0, double.MaxValue)]
    public double MaxGradientNorm { get; init; } = 1.0;

    public ScheduleKind Schedule { get; init; } = ScheduleKind.Cosine;

    /// <summary>Either this or <see cref="WarmupRatio"/>.</summary>
    [Range(0, int.MaxValue)]
    public int? WarmupSteps { get; init; }

    [Range(0.0, 1.0)]
    public double WarmupRatio { get; init; }

    /// <summary>Where cosine and linear end.</summary>
    [Range(0.0, 100.0)]
    public double MinLearningRate { get; init; }
}

public enum ScheduleKind { Cosine, Linear, Constant }

public sealed record EvaluationConfig
{
    /// <summary>Steps between two evaluations; always one at the end. Null: at the end only.</summary>
    [Range(1, int.MaxValue)]
    public int? Every { get; init; }

    /// <summary>Documents of one evaluation at most. Null: all.</summary>
    [Range(1, int.MaxValue)]
    public int? MaxDocuments { get; init; }
}

/// <summary>Texts that the model continues during training, for a person to read.</summary>
public sealed record SamplesConfig
{
    /// <summary>User messages; each is rendered with the chat template.</summary>
    public IReadOnlyList<string> Prompts { get; init; } = [];

    [Range(1, 1 << 20)]
    public int MaxNewTokens { get; init; } = 64;

    /// <summary>Steps between two rounds; always one at the end. Null: at the end only.</summary>
    [Range(1, int.MaxValue)]
    public int? Every { get; init; }

    /// <summary>0 is greedy.</summary>
    [Range(0.0, 100.0)]
    public double Temperature { get; init; }
}

public sealed record CheckpointConfig
{
    /// <summary>Steps between two checkpoints; always one at the end. Null: at the end only.</summary>
    [Range(1, int.MaxValue)]
    public int? Every { get; init; }

    /// <summary>Newest checkpoints kept; the best by evaluation loss is kept besides.</summary>
    [Range(1, 100_000)]
    public int Keep { get; init; } = 2;

    /// <summary>A directory, or azblob://CONTAINER/PREFIX (account from AZURE_STORAGE_CONNECTION_STRING or
    /// AZURE_STORAGE_ACCOUNT). Null: the job's own folder.</summary>
    public string? Store { get; init; }

    /// <summary>A store with checkpoints of the same training (data, model, optimizer, seed) to continue from.</summary>
    public string? ResumeFrom { get; init; }
}

public sealed record OutputConfig
{
    /// <summary>Where the trained model goes as a Hugging Face snapshot (LoRA: a PEFT adapter). Null: the job's own folder.</summary>
    public string? Path { get; init; }

    /// <summary>LoRA: also writes the merged model, in merged/.</summary>
    public bool Merge { get; init; }
}

/// <summary>What the job runs on. Checkpoints don't depend on it: a job may go on with another number of ranks.</summary>
public sealed record ResourcesConfig
{
    /// <summary>Processes that train together, each on a GPU (or CPU slot) of its own.</summary>
    [Range(1, 4096)]
    public int Ranks { get; init; } = 1;

    /// <summary>The machines that may run it; named like a job.</summary>
    public string Pool { get; init; } = "default";
}
