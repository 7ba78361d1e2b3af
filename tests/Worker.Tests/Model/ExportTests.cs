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
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_merged_model_and_an_adapter_answer_like_the_trained_one(bool rslora)
    {
        using var folder = new TemporaryDirectory();
        QwenConfig config = TinyModel.Config("qwen2");
        using QwenModel model = TinyModel.Create(config, lora: new LoraConfig { Rank = 4, Alpha = 8, Rslora = rslora });
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
