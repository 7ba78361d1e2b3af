using System.Text.Json;
using System.Text.Json.Nodes;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Data;
using Trainer.Worker.Model;
using static TorchSharp.torch;

namespace Trainer.Worker.Export;

/// <summary>
/// Writes a trained model as Hugging Face safetensors with config and tokenizer, which transformers, peft and vLLM load.
/// Everything is written to a temporary folder beside the target, which is then renamed: a target is whole or absent.
/// </summary>
public sealed class ModelExport
{
    private const long ShardBytes = 5_000_000_000;
    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true };
    private static readonly Dictionary<string, string> Metadata = new() { ["format"] = "pt" };

    private readonly QwenModel _model;
    private readonly string? _tokenizerDirectory;
    private readonly string? _system;
    private readonly ScalarType _dtype;
    private readonly Action? _progress;

    /// <param name="tokenizerDirectory">Its tokenizer files are copied along.</param>
    /// <param name="dtype">Of the written weights; adapters are always float32.</param>
    /// <param name="progress">Called whenever some bytes were written.</param>
    /// <param name="system">The job's data.system: the copied chat template then writes it by default.</param>
    public ModelExport(QwenModel model, string? tokenizerDirectory, ScalarType dtype, Action? progress = null, string? system = null)
    {
        _system = system;
        _progress = progress;
        _model = model;
        _tokenizerDirectory = tokenizerDirectory;
        _dtype = dtype;
    }

    /// <summary>What a job's model is written in: its base snapshot's dtype, or without one the dtype in which it trained.</summary>
    public static ScalarType Dtype(QwenModel model, JobConfig job)
    {
        if (job.Model.Path is not { } path)
        {
            return model.Placement.Dtype;
        }

        if ((model.Config.Source["dtype"] ?? model.Config.Source["torch_dtype"])?.ToString() is { } name)
        {
            return name switch { "bfloat16" => ScalarType.BFloat16, "float16" => ScalarType.Float16, _ => ScalarType.Float32 };
        }

        // The first Qwen's configurations do not say.
        using SnapshotWeights weights = SnapshotWeights.Open(path);
        ScalarType stored = TensorTypes.ToTorch(weights.Entry(model.Config.Names.Embedding).DType);
        return stored is ScalarType.BFloat16 or ScalarType.Float16 ? stored : ScalarType.Float32;
    }

    /// <summary>The whole model; adapters are merged in float32.</summary>
    /// <param name="directory">Must not exist, or be empty.</param>
    public Task WriteModelAsync(string directory, CancellationToken cancellationToken) => NewFolder.WriteAsync(directory, async temporary =>
    {
        JsonObject config = (JsonObject)_model.Config.Source.DeepClone();
        SetDtype(config);
        await File.WriteAllTextAsync(Path.Combine(temporary, "config.json"), config.ToJsonString(Indented) + "\n", cancellationToken);
        CopyTokenizer(temporary);
        CopyCode(temporary, "*.py", "*.cpp", "*.cu");
        await WriteShardsAsync(temporary, cancellationToken);
    });

    /// <summary>The adapters alone, in PEFT's format.</summary>
    /// <param name="baseModel">Where PEFT finds the base model.</param>
    public Task WriteAdapterAsync(string directory, string? baseModel, CancellationToken cancellationToken) => NewFolder.WriteAsync(directory, async temporary =>
    {
        LoraAdapters lora = _model.Lora ?? throw new InvalidOperationException("the model has no adapters");
        await File.WriteAllTextAsync(Path.Combine(temporary, PeftAdapter.ConfigFile), PeftAdapter.WriteConfig(lora, baseModel), cancellationToken);
        CopyTokenizer(temporary);
        CopyCode(temporary, "tokenization_*.py");
        await WriteFileAsync(
            Path.Combine(temporary, "adapter_model.safetensors"),
            [.. lora.NamedTensors().OrderBy(tensor => tensor.Name, StringComparer.Ordinal)],
            tensor => tensor.Slice(tensor.Parameter).detach(),
            ScalarType.Float32,
            cancellationToken);
    });

    /// <summary>As transformers reads it; the first Qwen's own code needs a transformers that knows the old name alone, and casts by flags if any is set.</summary>
    private void SetDtype(JsonObject config)
    {
        string name = _dtype switch { ScalarType.BFloat16 => "bfloat16", ScalarType.Float16 => "float16", _ => "float32" };
        config.Remove("dtype");
        config.Remove("torch_dtype");
        config[_model.Config.IsFirstQwen ? "torch_dtype" : "dtype"] = name;
        (string Flag, ScalarType Dtype)[] flags = [("bf16", ScalarType.BFloat16), ("fp16", ScalarType.Float16), ("fp32", ScalarType.Float32)];
        if (_model.Config.IsFirstQwen && flags.Any(each => config[each.Flag]?.GetValueKind() is JsonValueKind.True))
        {
            foreach ((string flag, ScalarType dtype) in flags)
            {
                config[flag] = dtype == _dtype;
            }
        }
    }

    private async Task WriteShardsAsync(string directory, CancellationToken cancellationToken)
    {
        List<List<NamedTensor>> shards = Shards([.. _model.NamedTensors().OrderBy(tensor => tensor.Name, StringComparer.Ordinal)]);
        var map = new JsonObject();
        for (int i = 0; i < shards.Count; i++)
        {
            string file = shards.Count == 1 ? "model.safetensors" : $"model-{i + 1:D5}-of-{shards.Count:D5}.safetensors";
            await WriteFileAsync(Path.Combine(directory, file), shards[i], Weight, _dtype, cancellationToken);
            shards[i].ForEach(tensor => map[tensor.Name] = file);
        }

        if (shards.Count > 1)
        {
            long total = shards.SelectMany(shard => shard).Sum(Bytes);
            var index = new JsonObject { ["metadata"] = new JsonObject { ["total_size"] = total }, ["weight_map"] = map };
            await File.WriteAllTextAsync(Path.Combine(directory, "model.safetensors.index.json"), index.ToJsonString(Indented) + "\n", cancellationToken);
        }
    }

    private Tensor Weight(NamedTensor tensor) =>
        _model.Lora is { } lora ? PeftAdapter.Merged(tensor, lora) : tensor.Slice(tensor.Parameter).detach();

    private List<List<NamedTensor>> Shards(IReadOnlyList<NamedTensor> tensors)
    {
        List<List<NamedTensor>> shards = [[]];
        long size = 0;
        foreach (NamedTensor tensor in tensors)
        {
            if (size > 0 && size + Bytes(tensor) > ShardBytes)
            {
                shards.Add([]);
                size = 0;
            }

            shards[^1].Add(tensor);
            size += Bytes(tensor);
        }

        return shards;
    }

    private long Bytes(NamedTensor tensor) => Specification(tensor, _dtype).Length;

    private static TensorSpec Specification(NamedTensor tensor, ScalarType dtype)
    {
        long[] shape = tensor.Parameter.shape;
        shape[0] = tensor.Rows;
        return new TensorSpec(tensor.Name, TensorTypes.ToSafetensors(dtype), shape);
    }

    private async Task WriteFileAsync(
        string path, IReadOnlyList<NamedTensor> tensors, Func<NamedTensor, Tensor> value, ScalarType dtype, CancellationToken cancellationToken)
    {
        await using FileStream stream = new(path, FileMode.CreateNew, FileAccess.Write);
        SafetensorsWriter writer = await SafetensorsWriter.StartAsync(
            stream, [.. tensors.Select(tensor => Specification(tensor, dtype))], Metadata, cancellationToken, _progress);
        foreach (NamedTensor tensor in tensors)
        {
            using NativeBuffer bytes = HostMemory.Copy(() => value(tensor).to(dtype));
            await writer.WriteAsync(tensor.Name, bytes, cancellationToken);
        }

        writer.Complete();
        stream.Flush(flushToDisk: true);
    }

    private void CopyTokenizer(string directory)
    {
        if (_tokenizerDirectory is null)
        {
            return;
        }

        foreach (string name in (string[])["tokenizer.json", TiktokenReader.FileName, "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "generation_config.json"])
        {
            string source = Path.Combine(_tokenizerDirectory, name);
            if (File.Exists(source))
            {
                File.Copy(source, Path.Combine(directory, name));
            }
        }

        if (_system is not null)
        {
            JinjaTemplate.SetDefaultSystem(directory, _system);
        }
    }

    /// <summary>The first Qwen's configurations name code beside them, without which nothing loads it.</summary>
    private void CopyCode(string directory, params string[] patterns)
    {
        if (!_model.Config.IsFirstQwen || !Directory.Exists(_model.Config.Directory))
        {
            return;
        }

        foreach (string source in patterns.SelectMany(pattern => Directory.EnumerateFiles(_model.Config.Directory, pattern)))
        {
            File.Copy(source, Path.Combine(directory, Path.GetFileName(source)), overwrite: true);
        }
    }
}
