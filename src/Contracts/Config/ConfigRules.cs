using System.Text.RegularExpressions;

namespace Trainer.Contracts;

/// <summary>Rules between keys. A rule is left out when one of its keys already has a problem.</summary>
internal static partial class ConfigRules
{
    /// <summary>Of one step, over all ranks.</summary>
    private const int MaxMicroBatches = 1 << 20;

    /// <summary>Of Linux.</summary>
    private const int MaxPath = 4096;

    /// <param name="absolute">There is no folder that a relative path could mean.</param>
    public static void Check(JobConfig job, ConfigBinder binder, List<string> problems, bool absolute)
    {
        Rule("name", job.Name is null || Name().IsMatch(job.Name),
            $"{PlainText.Quote(job.Name)} is no job name; use 1 to 63 lower-case letters, digits, '-', '.', '_', starting with a letter or digit");
        if (job.Model is { } model)
        {
            Rule("model", model.Path is not null || model.Config is not null,
                "neither path nor config is given; give path (a Hugging Face snapshot), or config (a config.json, weights at random)", "model.path", "model.config");
            Rule("model.config", model.Path is null || model.Config is null,
                "path and config exclude each other; keep path to start from its weights, or config to start at random", "model.path");
            Rule("model", model.Config is null || model.Path is not null || model.Tokenizer is not null,
                "config needs a tokenizer; add tokenizer, a directory with tokenizer.json or qwen.tiktoken", "model.config", "model.tokenizer");
            foreach ((string key, string? text) in new[] { ("path", model.Path), ("config", model.Config), ("tokenizer", model.Tokenizer) })
            {
                Rule($"model.{key}", text is null || text.Trim().Length > 0, "the text is empty; give a path, or remove the key");
            }
        }
        if (job.Data is { } data)
        {
            Check(data, Rule);
            Rule("training.batch_tokens", job.Training.BatchTokens >= data.MaxLength,
                $"{job.Training.BatchTokens} is below data.max_length ({data.MaxLength}), so the longest document would not fit; raise it to {data.MaxLength} or lower data.max_length",
                "data.max_length");
            Rule("evaluation.every", job.Evaluation.Every is null || data.Eval is { Count: > 0 } || data.EvalFraction > 0,
                "there is nothing to evaluate on; give data.eval or data.eval_fraction, or remove the key", "data.eval", "data.eval_fraction");
        }
        Check(job.Training, job.Optimizer, Rule);
        if (job.Lora is { } lora)
        {
            Rule("lora.target_modules", lora.TargetModules.Count > 0, "the list is empty; name linear layers such as q_proj, or write [all-linear]");
            Rule("lora.target_modules", lora.TargetModules.Count == 1 || !lora.TargetModules.Contains("all-linear"),
                "all-linear stands alone; remove it or the other names");
            Rule("lora.target_modules", lora.TargetModules.Distinct().Count() == lora.TargetModules.Count, "a name is given twice; remove one");
        }
        Rule("output.merge", !job.Output.Merge || job.Lora is not null,
            "merge needs lora, because only adapters can be merged; add lora or remove merge", "lora");
        Rule("checkpoint.store", IsStore(job.Checkpoint.Store), StoreCure(job.Checkpoint.Store));
        Rule("checkpoint.resume_from", IsStore(job.Checkpoint.ResumeFrom), StoreCure(job.Checkpoint.ResumeFrom));
        Rule("resources.ranks", (long)job.Resources.Ranks * job.Training.GradientAccumulation <= MaxMicroBatches,
            $"{job.Resources.Ranks} ranks of {job.Training.GradientAccumulation} micro-batches make a step of more than {MaxMicroBatches}; lower training.gradient_accumulation",
            "training.gradient_accumulation");
        Rule("resources.pool", job.Resources.Pool is null || Name().IsMatch(job.Resources.Pool),
            $"{PlainText.Quote(job.Resources.Pool)} is no pool name; use 1 to 63 lower-case letters, digits, '-', '.', '_', starting with a letter or digit");
        Rule("output.path", job.Output.Path is null || job.Output.Path.Trim().Length > 0, "the text is empty; give a directory, or remove the key");
        foreach ((string key, string path) in Paths(job))
        {
            Rule(key, !path.Any(char.IsControl), $"{PlainText.Quote(path)} holds a control character; no path here may");
            Rule(key, path.Length <= MaxPath, $"a path of {path.Length} characters is too long; {MaxPath} are allowed");
            Rule(key, !absolute || path.StartsWith('/') || path.Contains("://", StringComparison.Ordinal),
                $"{PlainText.Quote(path)} is relative, but to no folder that is known here; give an absolute path");
        }

        void Rule(string key, bool holds, string problem, params ReadOnlySpan<string> others)
        {
            if (!holds && binder.AreGood(key) && binder.AreGood(others))
            {
                problems.Add($"{Place(binder, key).At(key)}: {problem}");
            }
        }
    }

    /// <summary>Every path or URI with its key; empty ones have a rule of their own.</summary>
    private static IEnumerable<(string Key, string Path)> Paths(JobConfig job)
    {
        IEnumerable<(string Key, string? Path)> all = [
            ("model.path", job.Model?.Path), ("model.config", job.Model?.Config), ("model.tokenizer", job.Model?.Tokenizer),
            .. Sets("train", job.Data?.Train), .. Sets("eval", job.Data?.Eval),
            ("checkpoint.store", job.Checkpoint.Store), ("checkpoint.resume_from", job.Checkpoint.ResumeFrom), ("output.path", job.Output.Path)];
        return all.Where(entry => !string.IsNullOrWhiteSpace(entry.Path)).Select(entry => (entry.Key, entry.Path!));

        static IEnumerable<(string Key, string? Path)> Sets(string list, IReadOnlyList<DatasetConfig>? sets) =>
            (sets ?? []).Select((set, index) => ($"data.{list}[{index}].path", (string?)set.Path));
    }

    private delegate void RuleCheck(string key, bool holds, string problem, params ReadOnlySpan<string> others);

    private static void Check(DataConfig data, RuleCheck rule)
    {
        rule("data.train", data.Train is null || data.Train.Count > 0, "the list is empty; give at least one file, such as [{path: train.jsonl}]");
        rule("data.eval_fraction", data.EvalFraction == 0 || data.Eval.Count == 0,
            "eval and eval_fraction exclude each other; keep eval for files of their own, or eval_fraction for a share of train", "data.eval");
        foreach ((string list, IReadOnlyList<DatasetConfig>? sets) in new[] { ("train", data.Train), ("eval", data.Eval) })
        {
            for (int i = 0; i < (sets?.Count ?? 0); i++)
            {
                string key = $"data.{list}[{i}]";
                rule($"{key}.path", sets![i].Path is null || sets[i].Path.Trim().Length > 0, "the text is empty; give a JSONL file");
                rule($"{key}.mapping", sets[i].Mapping.All(pair => pair.Key.Length > 0 && pair.Value.Length > 0),
                    "a name is empty; map our field names to the file's, such as {prompt: question}");
            }
        }
    }

    private static void Check(TrainingConfig training, OptimizerConfig optimizer, RuleCheck rule)
    {
        rule("training.epochs", training.Steps is null || training.Epochs is null,
            "steps and epochs exclude each other; keep one", "training.steps");
        rule("optimizer.warmup_ratio", optimizer.WarmupSteps is null || optimizer.WarmupRatio == 0,
            "warmup_steps and warmup_ratio exclude each other; keep one", "optimizer.warmup_steps");
        rule("optimizer.warmup_steps", optimizer.WarmupSteps is null || training.Steps is null || optimizer.WarmupSteps <= training.Steps,
            $"{optimizer.WarmupSteps} warm-up steps do not fit into training.steps ({training.Steps}); lower it", "training.steps");
        rule("optimizer.min_learning_rate", optimizer.MinLearningRate <= optimizer.LearningRate,
            $"{Number(optimizer.MinLearningRate)} is above learning_rate ({Number(optimizer.LearningRate)}); lower it", "optimizer.learning_rate");
    }

    /// <summary>A directory or azblob://CONTAINER/PREFIX.</summary>
    private static bool IsStore(string? store) =>
        store is null || (store.Contains("://", StringComparison.Ordinal) ? Blob().IsMatch(store) : store.Trim().Length > 0);

    private static string StoreCure(string? store) =>
        $"{PlainText.Quote(store)} is no store; give a directory, or azblob://CONTAINER/PREFIX (a container has 3 to 63 lower-case letters, digits and '-')";

    /// <summary>The value itself, or the nearest thing above it that was written.</summary>
    public static ConfigOrigin Place(ConfigBinder binder, string key)
    {
        string path = key;
        ConfigOrigin? origin;
        while ((origin = binder.OriginOf(path)) is null && path.Length > 0)
        {
            path = path.LastIndexOf('.') is > 0 and int dot ? path[..dot] : "";
        }
        return origin!;
    }

    private static string Number(double value) => value.ToString(System.Globalization.CultureInfo.InvariantCulture);

    [GeneratedRegex(@"^[a-z0-9][a-z0-9._-]{0,62}\z")]
    private static partial Regex Name();

    [GeneratedRegex(@"^azblob://[a-z0-9](-?[a-z0-9]){2,62}(/[^\s?#]*)?\z")]
    private static partial Regex Blob();
}
