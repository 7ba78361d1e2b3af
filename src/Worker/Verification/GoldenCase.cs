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
    private readonly SafetensorsFile _tensors;

    private GoldenCase(string directory)
    {
        Directory = directory;
        Name = Path.GetFileName(Path.GetFullPath(directory).TrimEnd('/'));
        Config = QwenConfig.Load(Path.Combine(directory, "config.json"));
        _tensors = SafetensorsFile.Open(Path.Combine(directory, "golden.safetensors"));
        using JsonDocument json = ReadJson(Path.Combine(directory, "golden.json"));
        JsonElement root = json.RootElement, adamw = root.GetProperty("adamw");
        Loss = root.GetProperty("loss").GetDouble();
        Losses = Numbers(root.GetProperty("losses"));
        GradientNorms = Numbers(root.GetProperty("grad_norms"));
        Greedy = [.. Numbers(root.GetProperty("greedy")).Select(number => (int)number)];
        double[] betas = Numbers(adamw.GetProperty("betas"));
        Optimizer = new OptimizerConfig
        {
            LearningRate = adamw.GetProperty("lr").GetDouble(),
            Beta1 = betas[0],
            Beta2 = betas[1],
            Epsilon = adamw.GetProperty("eps").GetDouble(),
            WeightDecay = adamw.GetProperty("weight_decay").GetDouble(),
            MaxGradientNorm = adamw.GetProperty("clip").GetDouble(),
            Schedule = ScheduleKind.Constant,
        };
        Initial = ReadBatch("");
        Steps = [.. Enumerable.Range(0, Losses.Count).Select(step => ReadBatch($"step{step}."))];
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
        catch (Exception e) when (e is KeyNotFoundException or InvalidOperationException or FormatException)
        {
            throw new JobInputException($"{directory}: not a golden case: {e.Message}", e);
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

    public void Dispose() => _tensors.Dispose();

    private GoldenBatch ReadBatch(string prefix)
    {
        using DisposeScope scope = NewDisposeScope();
        using Tensor ids = Read(prefix + "input_ids"), labels = Read(prefix + "labels"), mask = Read(prefix + "attention_mask");
        return new GoldenBatch(
            (int)ids.shape[0], (int)ids.shape[1], ids.data<long>().ToArray(), labels.data<long>().ToArray(), mask.data<long>().ToArray());
    }

    private Tensor Read(string name)
    {
        TensorEntry entry = _tensors.Find(name)
            ?? throw new JobInputException($"{_tensors.Path}: tensor {name} is missing; a golden case holds it (see docs/golden-cases.md)");
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

    private static double[] Numbers(JsonElement array) => [.. array.EnumerateArray().Select(number => number.GetDouble())];
}
