using Trainer.Contracts;
using Trainer.Worker.Data;
using Trainer.Worker.Model;
using Trainer.Worker.Tests.Model;
using Trainer.Worker.Training;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Training;

public sealed class MachineUseTests
{
    [Theory]
    [InlineData("qwen3", false)]
    [InlineData("qwen2", true)]
    public void Every_weight_counts_for_every_token_and_every_pair_that_sees_each_other(string type, bool tied)
    {
        QwenConfig config = TinyModel.Config(type, tied: tied);
        using QwenModel model = TinyModel.Create(config);
        PackedBatch batch = TinyModel.Batch(3, 40, 7, 21);
        double weights = Weights(model), pairs = Pairs(batch, window: null);
        double expected = (6 * weights * batch.Tokens.Length) + (6.0 * config.HiddenSize * config.VocabSize * batch.TrainedTokens)
            + (config.NumLayers * 12.0 * config.NumHeads * config.HeadDim * pairs);
        Assert.Equal(expected, new MachineUse(config, adapters: null, peak: null).Flops(batch), 1.0);
    }

    [Fact]
    public void Frozen_weights_have_no_gradient_to_compute_and_a_window_hides_pairs()
    {
        QwenConfig config = TinyModel.Config() with { SlidingWindow = 16, LayerSlides = [true, false, true] };
        using QwenModel model = TinyModel.Create(config, lora: new LoraConfig { Rank = 4 });
        double adapters = model.Lora!.All.Sum(adapter => adapter.A.NumberOfElements + adapter.B.NumberOfElements);
        PackedBatch batch = TinyModel.Batch(3, 40, 7, 21);
        double expected = (((4 * Weights(model)) + (6 * adapters)) * batch.Tokens.Length) + (4.0 * config.HiddenSize * config.VocabSize * batch.TrainedTokens)
            + (12.0 * config.NumHeads * config.HeadDim * (Pairs(batch, null) + (2 * Pairs(batch, 16))));
        Assert.True(adapters > 0);
        Assert.Equal(expected, new MachineUse(config, adapters, peak: null).Flops(batch), 1.0);
    }

    [Fact]
    public void It_is_a_share_of_the_peak_and_absent_where_that_is_unknown()
    {
        QwenConfig config = TinyModel.Config();
        PackedBatch batch = TinyModel.Batch(3, 40);
        var known = new MachineUse(config, null, peak: 1e9);
        Assert.Equal(2 * known.Flops(batch) / 0.5 / 1e9, known.Of([batch, batch], 0.5)!.Value, 1e-12);
        Assert.Null(new MachineUse(config, null, peak: null).Of([batch], 0.5));
    }

    [Theory]
    [InlineData("NVIDIA H200", 989.4)]
    [InlineData("NVIDIA H200 NVL", 835.5)]
    [InlineData("NVIDIA H100 80GB HBM3", 989.4)]
    [InlineData("NVIDIA H100 PCIe", 756.0)]
    [InlineData("NVIDIA A100-SXM4-80GB", 312.0)]
    [InlineData("NVIDIA L40S", 362.0)]
    [InlineData("NVIDIA L40", null)]
    [InlineData("NVIDIA A10G", null)]
    [InlineData("NVIDIA H20", 148.0)]
    [InlineData("NVIDIA H200 MIG 1g.18gb", null)]
    [InlineData("", null)]
    public void A_peak_is_known_by_the_whole_name(string gpu, double? teraflops)
    {
        Assert.Equal(teraflops * 1e12, DevicePeak.Find(gpu, ScalarType.BFloat16));
        Assert.Null(DevicePeak.Find(gpu, ScalarType.Float32));
    }

    /// <summary>Of all matrices but the embedding, which is looked up, and the head, which is asked for trained tokens only.</summary>
    private static double Weights(QwenModel model) => model.NamedTensors()
        .Where(tensor => tensor.Parameter.dim() == 2 && tensor.Name.StartsWith("model.layers.", StringComparison.Ordinal))
        .Sum(tensor => tensor.Parameter.shape[1] * (double)tensor.Rows);

    private static double Pairs(PackedBatch batch, int? window)
    {
        double pairs = 0;
        foreach (int position in batch.Positions)
        {
            pairs += Math.Min(position + 1, window ?? int.MaxValue);
        }
        return pairs;
    }
}
