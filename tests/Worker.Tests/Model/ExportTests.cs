using Trainer.Contracts;
using Trainer.Worker.Attention;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Export;
using Trainer.Worker.Model;
using Trainer.Worker.Tests.Checkpoints;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Model;

/// <summary>What is exported is what was trained, under Hugging Face's and PEFT's names.</summary>
public sealed class ExportTests
{
    [Theory]
    [InlineData("qwen2", true)]
    [InlineData("qwen3", false)]
    [InlineData("qwen", false)]
    public async Task An_exported_model_loads_to_the_same_bits(string type, bool tied)
    {
        using var folder = new TemporaryDirectory();
        string target = Path.Combine(folder.Path, "model");
        using QwenModel model = TinyModel.Create(TinyModel.Config(type, tied: tied));
        await new ModelExport(model, null, ScalarType.Float32).WriteModelAsync(target, default);

        using QwenModel again = Load(target);
        Assert.Equal(SnapshotLayout.Tensors(model.Config).Select(tensor => tensor.Name), model.NamedTensors().Select(tensor => tensor.Name));
        foreach ((NamedTensor a, NamedTensor b) in model.NamedTensors().Zip(again.NamedTensors()))
        {
            Assert.True(TinyModel.Array(a.Slice(a.Parameter)).AsSpan().SequenceEqual(TinyModel.Array(b.Slice(b.Parameter))), a.Name);
        }
    }

    [Theory]
    [InlineData("qwen2", false)]
    [InlineData("qwen2", true)]
    [InlineData("qwen", false, "c_attn", "attn.c_proj", "w1", "w2")]
    [InlineData("qwen", true, "all-linear")]
    public async Task A_merged_model_and_an_adapter_answer_like_the_trained_one(string type, bool rslora, params string[] targets)
    {
        using var folder = new TemporaryDirectory();
        QwenConfig config = TinyModel.Config(type);
        var lora = new LoraConfig { Rank = 4, Alpha = 8, Rslora = rslora };
        using QwenModel model = TinyModel.Create(config, lora: targets.Length > 0 ? lora with { TargetModules = targets } : lora);
        var export = new ModelExport(model, null, ScalarType.Float32);
        string merged = Path.Combine(folder.Path, "merged"), adapter = Path.Combine(folder.Path, "adapter");
        await export.WriteModelAsync(merged, default);
        await export.WriteAdapterAsync(adapter, "some/base", default);

        using QwenModel fromMerged = Load(merged);
        using QwenModel fromAdapter = TinyModel.Create(config);
        using (SnapshotWeights weights = SnapshotWeights.Open(adapter, "adapter_model"))
        {
            Weights.LoadAdapter(fromAdapter.AttachLora(PeftAdapter.ReadConfig(adapter), seed: 1), weights);
        }

        float[] expected = Logits(model);
        Assert.Equal(expected, Logits(fromAdapter));
        Assert.All(expected.Zip(Logits(fromMerged)), pair => Assert.InRange(Math.Abs(pair.First - pair.Second), 0, 1e-4));
        using QwenModel untrained = TinyModel.Create(config);
        Assert.NotEqual(expected, Logits(untrained));
    }

    [Theory]
    [InlineData("c_attn", "attn.c_attn")]
    [InlineData("attn.c_proj", "attn.c_proj")]
    [InlineData("c_proj", "attn.c_proj", "mlp.c_proj")]
    [InlineData("all-linear", "attn.c_attn", "attn.c_proj", "mlp.w2", "mlp.w1", "mlp.c_proj")]
    public void Lora_targets_of_the_first_qwen_are_ends_of_its_layers_paths(string target, params string[] adapted)
    {
        using QwenModel model = TinyModel.Create(TinyModel.Config("qwen", layers: 1), lora: new LoraConfig { TargetModules = [target] });
        Assert.Equal(adapted.Select(path => $"transformer.h.0.{path}"), model.Lora!.All.Select(adapter => adapter.FullName));
    }

    [Theory]
    [InlineData("qwen", "q_proj")]
    [InlineData("qwen", "proj")]
    [InlineData("qwen3", "c_attn")]
    public void A_target_that_ends_no_layers_path_is_refused(string type, string target) => Assert.StartsWith(
        $"lora.target_modules: '{target}' is not a linear layer of this model; choose from {(type == "qwen" ? "c_attn, c_proj, w2, w1" : "q_proj")}",
        Assert.Throws<JobInputException>(() => LoraAdapters.Resolve([target], TinyModel.Config(type).Names)).Message, StringComparison.Ordinal);

    [Fact]
    public async Task An_export_of_the_first_qwen_has_its_code_and_vocabulary_and_the_dtype_as_that_code_reads_it()
    {
        using var folder = new TemporaryDirectory();
        string given = Directory.CreateDirectory(Path.Combine(folder.Path, "given")).FullName, target = Path.Combine(folder.Path, "model");
        System.Text.Json.Nodes.JsonObject source = TinyModel.FirstQwen();
        source["fp32"] = true;
        File.WriteAllText(Path.Combine(given, "config.json"), source.ToJsonString());
        string[] along = ["modeling_qwen.py", "qwen_generation_utils.py", "cache_autogptq_cuda_256.cpp", "cache_autogptq_cuda_kernel_256.cu", "qwen.tiktoken"];
        foreach (string file in along.Append("README.md"))
        {
            File.WriteAllText(Path.Combine(given, file), file);
        }

        using QwenModel model = TinyModel.Create(QwenConfig.Load(Path.Combine(given, "config.json")));
        await new ModelExport(model, given, ScalarType.BFloat16).WriteModelAsync(target, default);
        Assert.Equal([.. along.Append("config.json").Append("model.safetensors").Order(StringComparer.Ordinal)], Directory.EnumerateFiles(target).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        var config = (System.Text.Json.Nodes.JsonObject)System.Text.Json.Nodes.JsonNode.Parse(File.ReadAllText(Path.Combine(target, "config.json")))!;
        Assert.Equal(("bfloat16", false, true, false), ((string?)config["torch_dtype"], config.ContainsKey("dtype"), (bool?)config["bf16"], (bool?)config["fp32"]));
        Assert.Equal(160, (int?)config["intermediate_size"]);
    }

    [Fact]
    public async Task An_export_never_overwrites()
    {
        using var folder = new TemporaryDirectory();
        File.WriteAllText(Path.Combine(folder.Path, "mine.txt"), "");
        using QwenModel model = TinyModel.Create(TinyModel.Config());
        var export = new ModelExport(model, null, ScalarType.Float32);
        Assert.Contains("not empty", (await Assert.ThrowsAsync<JobInputException>(() => export.WriteModelAsync(folder.Path, default))).Message, StringComparison.Ordinal);
    }

    private static QwenModel Load(string folder)
    {
        var model = new QwenModel(QwenConfig.Load(Path.Combine(folder, "config.json")), new ModelPlacement(ScalarType.Float32, CPU), AttentionBackend.Flash);
        using SnapshotWeights weights = SnapshotWeights.Open(folder);
        Weights.Load(model, weights);
        return model;
    }

    private static float[] Logits(QwenModel model)
    {
        using DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        using ModelInput input = ModelInput.From(TinyModel.Batch(9, 20, 7), CPU);
        return TinyModel.Array(model.Logits(input));
    }
}
