using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Verification;

/// <summary>
/// A Hugging Face snapshot with values computed by transformers and peft: golden.json and golden.safetensors beside the
/// weights, and for LoRA adapter/ and merged-after-6-steps/.
/// </summary>
public sealed class GoldenCase : IDisposable
{
    /// <summary>The prompt of the greedy tokens: the first of row 0.</summary>
    public const int PromptTokens = 12;

    private readonly SafetensorsFile _tensors;

    private GoldenCase(string directory)
    {
        Directory = directory;
        Name = Path.GetFileName(Path.GetFullPath(directory).TrimEnd('/'));
        Config = QwenConfig.Load(Path.Combine(directory, "config.json"));
        _tensors = SafetensorsFile.Open(Path.Combine(directory, "golden.safetensors"));
        using JsonDocument json = ReadJson(Path.Combine(directory, "golden.json"));
        JsonElement root = json.RootElement, adamw = Member(root, "adamw");
        Loss = Number(root, "loss");
        Losses = Numbers(root, "losses");
        GradientNorms = Numbers(root, "grad_norms", Losses.Count);
        Greedy = [.. Numbers(root, "greedy").Select(number => (int)number)];
        double[] betas = Numbers(adamw, "betas", 2);
        Optimizer = new OptimizerConfig
        {
            LearningRate = Number(adamw, "lr"),
            Beta1 = betas[0],
            Beta2 = betas[1],
            Epsilon = Number(adamw, "eps"),
            WeightDecay = Number(adamw, "weight_decay"),
            MaxGradientNorm = Number(adamw, "clip"),
            Schedule = ScheduleKind.Constant,
        };
        Initial = ReadBatch("");
        Steps = [.. Enumerable.Range(0, Losses.Count).Select(step => ReadBatch($"step{step}."))];
        if (Greedy.Count <= PromptTokens || Greedy.Any(id => id < 0 || id >= Config.VocabSize))
        {
            throw Wrong("golden.json", $"greedy must be {PromptTokens} prompt tokens and what follows, ids below vocab_size {Config.VocabSize}");
        }

        if (Find("logits").Shape is not [var rows, var length, var vocabulary] || rows != Initial.Rows || length != Initial.Length || vocabulary != Config.VocabSize)
        {
            throw Wrong("golden.safetensors", $"logits must have shape [{Initial.Rows}, {Initial.Length}, {Config.VocabSize}], as input_ids and vocab_size say");
        }
    }

    public string Directory { get; }

    public string Name { get; }

    public QwenConfig Config { get; }

    /// <summary>Mean over trained tokens of <see cref="Initial"/> at the initial weights.</summary>
    public double Loss { get; }

    public IReadOnlyList<double> Losses { get; }

    /// <summary>Before clipping.</summary>
    public IReadOnlyList<double> GradientNorms { get; }

    /// <summary>A prompt of 12 tokens and what follows it, greedily, after the steps.</summary>
    public IReadOnlyList<int> Greedy { get; }

    public OptimizerConfig Optimizer { get; }

    public GoldenBatch Initial { get; }

    public IReadOnlyList<GoldenBatch> Steps { get; }

    public bool HasAdapter => File.Exists(Path.Combine(AdapterDirectory, "adapter_config.json"));

    public string AdapterDirectory => Path.Combine(Directory, "adapter");

    public string MergedDirectory => Path.Combine(Directory, "merged-after-6-steps");

    /// <exception cref="JobInputException">The folder is not a golden case, or one that is damaged.</exception>
    public static GoldenCase Open(string directory)
    {
        try
        {
            return new GoldenCase(directory);
        }
        catch (Exception e) when (e is InvalidOperationException or FormatException)
        {
            throw new JobInputException($"{directory}: not a golden case: {e.Message}; docs/golden-cases.md has the format", e);
        }
    }

    /// <summary>Gradients at the initial weights by parameter name (PEFT's for LoRA).</summary>
    public IEnumerable<(string Parameter, Tensor Gradient)> Gradients()
    {
        foreach (TensorEntry entry in _tensors.Tensors.Where(entry => entry.Name.StartsWith("grad.", StringComparison.Ordinal)))
        {
            string name = entry.Name["grad.".Length..].Replace(".lora_A.default.", ".lora_A.", StringComparison.Ordinal)
                .Replace(".lora_B.default.", ".lora_B.", StringComparison.Ordinal);
            yield return (name, Read(entry.Name));
        }
    }

    /// <summary>float32 [B, T, V].</summary>
    public Tensor Logits() => Read("logits");

    /// <summary>Documents with the logits [T, V] of generation, which go beyond the trained length; none in most cases.</summary>
    public IEnumerable<(int[] Tokens, Tensor Logits)> LongDocuments()
    {
        if (_tensors.Find("eval.input_ids") is null)
        {
            yield break;
        }

        using Tensor ids = Read("eval.input_ids"), logits = Read("eval.logits");
        if (ids.shape is not [var rows, var length] || ids.dtype != ScalarType.Int64 || !logits.shape.SequenceEqual([rows, length, Config.VocabSize]))
        {
            throw Wrong("golden.safetensors", $"eval.input_ids must be int64 [rows, length] and eval.logits [rows, length, {Config.VocabSize}]");
        }

        for (long row = 0; row < rows; row++)
        {
            using DisposeScope scope = NewDisposeScope();
            int[] tokens = [.. ids[row].data<long>().ToArray().Select(id => (int)id)];
            if (tokens.Any(id => id < 0 || id >= Config.VocabSize))
            {
                throw Wrong("golden.safetensors", $"eval.input_ids: an id is not below vocab_size {Config.VocabSize}");
            }

            yield return (tokens, logits[row]);
        }
    }

    public void Dispose() => _tensors.Dispose();

    private GoldenBatch ReadBatch(string prefix)
    {
        using DisposeScope scope = NewDisposeScope();
        using Tensor ids = Read(prefix + "input_ids"), labels = Read(prefix + "labels"), mask = Read(prefix + "attention_mask");
        if (ids.shape is not [_, _] || !labels.shape.SequenceEqual(ids.shape) || !mask.shape.SequenceEqual(ids.shape)
            || new[] { ids, labels, mask }.Any(tensor => tensor.dtype != ScalarType.Int64))
        {
            throw Wrong("golden.safetensors", $"{prefix}input_ids, {prefix}labels and {prefix}attention_mask must be int64 of one shape [rows, length]");
        }

        var batch = new GoldenBatch(
            (int)ids.shape[0], (int)ids.shape[1], ids.data<long>().ToArray(), labels.data<long>().ToArray(), mask.data<long>().ToArray());
        return batch.Problem(Config.VocabSize) is { } problem ? throw Wrong("golden.safetensors", $"{prefix}{problem}") : batch;
    }

    private JobInputException Wrong(string file, string what) => new($"{Path.Combine(Directory, file)}: {what}; docs/golden-cases.md has the format");

    private JsonElement Member(JsonElement json, string key) => json.ValueKind == JsonValueKind.Object && json.TryGetProperty(key, out JsonElement value)
        ? value
        : throw Wrong("golden.json", $"{key} is missing");

    private double Number(JsonElement json, string key) =>
        Member(json, key) is { ValueKind: JsonValueKind.Number } value ? value.GetDouble() : throw Wrong("golden.json", $"{key} must be a number");

    private double[] Numbers(JsonElement json, string key, int? count = null) =>
        Member(json, key) is { ValueKind: JsonValueKind.Array } list && list.EnumerateArray().All(number => number.ValueKind == JsonValueKind.Number)
            && (count is null || list.GetArrayLength() == count)
            ? [.. list.EnumerateArray().Select(number => number.GetDouble())]
            : throw Wrong("golden.json", $"{key} must be a list of {(count is null ? "" : $"{count} ")}numbers");

    private TensorEntry Find(string name) => _tensors.Find(name)
        ?? throw new JobInputException($"{_tensors.Path}: tensor {name} is missing; a golden case holds it (see docs/golden-cases.md)");

    private Tensor Read(string name)
    {
        TensorEntry entry = Find(name);
        Tensor tensor = empty([.. entry.Shape], dtype: TensorTypes.ToTorch(entry.DType));
        _tensors.Read(entry, tensor.DataPointer, entry.Length);
        return tensor;
    }

    private static JsonDocument ReadJson(string path)
    {
        try
        {
            return JsonDocument.Parse(File.ReadAllText(path));
        }
        catch (JsonException e)
        {
            throw new JobInputException($"{path}:{e.LineNumber + 1}: malformed JSON: {e.Message}", e);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new JobInputException($"{path}: no such file; `trainer verify` takes a folder with golden.json and golden.safetensors", e);
        }
    }
}
