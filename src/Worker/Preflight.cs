using Trainer.Contracts;
using Trainer.Worker.Agent;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Data;
using Trainer.Worker.Model;
using Trainer.Worker.Training;

namespace Trainer.Worker;

/// <summary>Everything that can be known to be wrong with a job before anything is queued, without loading libtorch.</summary>
/// <param name="Problems">One sentence a problem, naming the file and the cure; empty when the job can start.</param>
/// <param name="Warnings">What its log will warn of, and may not be what is wanted.</param>
public sealed record Preflight(IReadOnlyList<string> Problems, IReadOnlyList<string> Warnings)
{
    /// <summary>A person waits for the answer.</summary>
    private static readonly TimeSpan s_storePatience = TimeSpan.FromSeconds(10);

    public static Preflight Of(JobConfig job)
    {
        var problems = new List<string>();
        QwenConfig? config = Try(problems, () => QwenConfig.Load(JobModel.ConfigPath(job.Model)));
        if (config is not null && job.Model.Path is { } path)
        {
            Try(problems, () =>
            {
                using SnapshotWeights weights = SnapshotWeights.Open(path);
                problems.AddRange(SnapshotLayout.Problems(config, weights).Take(10));
                return true;
            });
        }

        if (config is not null)
        {
            CheckMemory(job, config, problems);
        }

        if (config is not null && job.Lora is { } lora)
        {
            Try(problems, () => LoraAdapters.Resolve(lora.TargetModules, config.Names));
        }

        CheckDevice(job, problems);

        Tokenizer? tokenizer = Try(problems, () => Tokenizer.Load(JobModel.TokenizerPath(job.Model)));
        if (tokenizer is not null && config is not null)
        {
            if (tokenizer.VocabularySize > config.VocabSize)
            {
                problems.Add($"{JobModel.TokenizerPath(job.Model)}: the tokenizer has {tokenizer.VocabularySize} tokens, "
                    + $"but the model's vocab_size is {config.VocabSize}; take both from the same snapshot");
            }
        }

        ChatTemplate? template = config is null ? null : Try(problems, () => ChatTemplate.Of(job.Data, JobModel.TokenizerPath(job.Model), config.ModelType));
        problems.AddRange(DataPreflight.Check(job, tokenizer));
        CheckOutput(job, problems);
        if (problems.Count == 0)
        {
            CheckFolder("output.path", job.Output.Path, problems);
            CheckFolder("checkpoint.store", job.Checkpoint.Store, problems);
        }

        if (problems.Count == 0)
        {
            Try(problems, () => CheckCheckpoints(job, tokenizer!, template!));
        }

        return new Preflight([.. problems.Distinct()], template?.Warning is { } warning ? [warning] : []);
    }

    /// <summary>Ranks may run elsewhere, and then only they know what is there.</summary>
    private static void CheckDevice(JobConfig job, List<string> problems)
    {
        bool runsHere = string.IsNullOrEmpty(Environment.GetEnvironmentVariable("TRAINER_COORDINATOR"));
        if (runsHere && CudaDevices.Find().IsEmpty)
        {
            if (job.Model.Device == DeviceKind.Cuda)
            {
                problems.Add("model.device: cuda, but this machine has no NVIDIA GPU; set it to auto or cpu");
            }

            if (job.Model.Attention == AttentionKind.Sdpa)
            {
                problems.Add("model.attention: sdpa needs a GPU and libtorch 2.4 or later; set it to auto");
            }
        }
    }

    private static void CheckOutput(JobConfig job, List<string> problems)
    {
        if (job.Output.Path is { } output && Directory.Exists(output) && Directory.EnumerateFileSystemEntries(output).Any())
        {
            problems.Add($"output.path: {output} is not empty; name another folder or remove it");
        }
    }

    private static void CheckFolder(string key, string? path, List<string> problems)
    {
        if (path is not null && !path.Contains("://", StringComparison.Ordinal) && NewFolder.Problem(path) is { } problem)
        {
            problems.Add($"{key}: {problem}");
        }
    }

    /// <summary>What the training keeps in memory must fit the machine at all.</summary>
    private static void CheckMemory(JobConfig job, QwenConfig config, List<string> problems)
    {
        if (job.Model.Device != DeviceKind.Cpu && !CudaDevices.Find().IsEmpty)
        {
            return;
        }

        double weights = SnapshotLayout.Tensors(config).Sum(tensor => tensor.Shape.Aggregate(1.0, (product, size) => product * size));
        // float32 on the CPU: weights, and with full training gradients and two moments.
        double needed = weights * sizeof(float) * (job.Lora is null ? 4 : 1), there = GC.GetGCMemoryInfo().TotalAvailableMemoryBytes;
        if (needed > there)
        {
            problems.Add(FormattableString.Invariant($"{JobModel.ConfigPath(job.Model)}: {weights / 1e9:0.#} billion parameters need {needed / (1L << 30):0} GiB ")
                + FormattableString.Invariant($"of memory to train, and this machine has {there / (1L << 30):0} GiB; take a smaller model{(job.Lora is null ? ", or add lora" : "")}"));
        }
    }

    /// <summary>Checkpoints that are there already must be of this very training. Changes nothing in the store.</summary>
    private static bool CheckCheckpoints(JobConfig job, Tokenizer tokenizer, ChatTemplate template)
    {
        TrainingFingerprint? fingerprint = null;
        foreach ((string key, string? given) in new[] { ("checkpoint.store", job.Checkpoint.Store), ("checkpoint.resume_from", job.Checkpoint.ResumeFrom) })
        {
            if (given is not { } address)
            {
                continue;
            }

            fingerprint ??= TrainingFingerprint.Of(job, PreparedData.TrainFingerprint(job.Data, job.Seed, tokenizer, template));
            ICheckpointStore store;
            IReadOnlyList<CheckpointFinding> findings;
            try
            {
                store = CheckpointStore.Open(address, patience: s_storePatience);
                findings = new CheckpointReader(store, TimeProvider.System).VerifyAsync(CancellationToken.None).GetAwaiter().GetResult();
            }
            catch (Exception error) when (error is StoreException or JobInputException)
            {
                throw new JobInputException($"{key}: {error.Message}", error);
            }

            if (findings.FirstOrDefault(finding => finding.Manifest is { } manifest && manifest.Fingerprint != fingerprint.Hash) is { Manifest: { } other })
            {
                JobInputException refusal = CheckpointReader.OfAnotherJob(store, other, job.Name, fingerprint.Hash, fingerprint.Differences(other));
                throw new JobInputException($"{key}: {refusal.Message}", refusal);
            }

            if (key == "checkpoint.resume_from" && !findings.Any(finding => finding.State == CheckpointState.Good))
            {
                throw new JobInputException($"{key}: {address} has no good checkpoint{Damages(findings)}; {ResumeCure(address)}");
            }
        }

        return true;
    }

    private static string Damages(IReadOnlyList<CheckpointFinding> findings) => findings.Count == 0 ? ""
        : $" ({string.Join("; ", findings.Take(3).Select(finding => $"step {finding.Step} {(finding.Damage is { } damage ? $"is damaged: {damage}" : "was never committed")}"))})";

    /// <summary>What was likely meant: the folder of one step, a job's folder, or a job.</summary>
    private static string ResumeCure(string address)
    {
        (string above, string last) = address.TrimEnd('/').LastIndexOf('/') is > 0 and int slash ? (address[..slash], address.TrimEnd('/')[(slash + 1)..]) : ("", address);
        const string orRemove = ", or remove the key to start from step 0";
        if (CheckpointPath.IsStep(last))
        {
            return $"this is the folder of one step: give the store above it, {above}{orRemove}";
        }

        string within = new JobFiles(address).Checkpoints;
        if (Directory.Exists(within))
        {
            return $"this is a job's folder: give its checkpoints, {within}{orRemove}";
        }

        return !Directory.Exists(address) && JobId.TryParse(last, out JobId job)
            ? $"correct the address (if {job} is a job: the last line of \"trainer checkpoints list {job}\" is what to give){orRemove}"
            : $"correct the address{orRemove}";
    }

    private static T? Try<T>(List<string> problems, Func<T> check)
    {
        try
        {
            return check();
        }
        catch (JobInputException e)
        {
            problems.Add(e.Message);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            problems.Add(e.Message);
        }

        return default;
    }
}
