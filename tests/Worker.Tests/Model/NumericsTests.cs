using Trainer.Contracts;
using Trainer.Worker.Attention;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Data;
using Trainer.Worker.Model;
using Trainer.Worker.Training;
using Trainer.Worker.Verification;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Tests.Model;

/// <summary>What must not change the numbers: packing, accumulation, recomputation, the attention backend.</summary>
[Collection(Alone.Name)]
public sealed class NumericsTests
{
    public static TheoryData<string, bool, bool> Architectures => new()
    {
        { "qwen2", true, false }, { "qwen2", false, false }, { "qwen3", false, false }, { "qwen3", true, false }, { "qwen3", false, true },
    };

    [Theory]
    [MemberData(nameof(Architectures))]
    public void Packed_documents_give_the_loss_and_every_gradient_of_separate_ones(string type, bool tied, bool lora)
    {
        QwenConfig config = TinyModel.Config(type, tied: tied);
        PackedBatch batch = TinyModel.Batch(3, 17, 1, 64, 33, 2, 48);
        using QwenModel packed = TinyModel.Create(config, lora: lora ? new LoraConfig { Rank = 4, Alpha = 8 } : null);
        using QwenModel separate = TinyModel.Create(config, lora: lora ? new LoraConfig { Rank = 4, Alpha = 8 } : null);

        double scale = 1.0 / batch.TrainedTokens;
        double packedLoss = TinyModel.Backward(packed, batch, scale);
        double separateLoss = TinyModel.Separate(batch).Sum(document => TinyModel.Backward(separate, document, scale));

        Assert.InRange(Math.Abs(packedLoss - separateLoss) / packedLoss, 0, 1e-6);
        AssertClose(TinyModel.Gradients(separate), TinyModel.Gradients(packed), 1e-6);
    }

    [Theory]
    [InlineData("qwen2-tied")]
    [InlineData("qwen3-untied")]
    public void Packed_documents_of_a_golden_snapshot_give_the_gradients_of_separate_ones(string name)
    {
        using GoldenCase golden = GoldenCase.Open(Repository.File("tests", "golden", name));
        using QwenModel packed = Snapshot(golden), separate = Snapshot(golden);
        foreach (PackedBatch batch in golden.Steps.Append(golden.Initial).Select(step => step.Pack(padded: false)))
        {
            ClearGradients(packed);
            ClearGradients(separate);
            double scale = 1.0 / batch.TrainedTokens;
            double packedLoss = TinyModel.Backward(packed, batch, scale);
            double separateLoss = TinyModel.Separate(batch).Sum(document => TinyModel.Backward(separate, document, scale));

            Assert.InRange(Math.Abs(packedLoss - separateLoss) / packedLoss, 0, 1e-6);
            AssertClose(TinyModel.Gradients(separate), TinyModel.Gradients(packed), 1e-6);
        }
    }

    [Fact]
    public void A_document_has_the_same_logits_alone_and_packed()
    {
        using DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        PackedBatch batch = TinyModel.Batch(3, 17, 1, 64, 33, 2, 48);
        using QwenModel model = TinyModel.Create(TinyModel.Config());
        using ModelInput packed = ModelInput.From(batch, CPU);
        Tensor alone = cat([.. TinyModel.Separate(batch).Select(document => model.Logits(ModelInput.From(document, CPU)))]);
        Assert.True(TinyModel.Array(model.Logits(packed)).AsSpan().SequenceEqual(TinyModel.Array(alone)));
    }

    [Fact]
    public void Accumulating_eight_micro_batches_trains_like_one_batch()
    {
        QwenConfig config = TinyModel.Config();
        using QwenModel whole = TinyModel.Create(config);
        using QwenModel parts = TinyModel.Create(config);
        float[][] initial = [.. whole.NamedTensors().Select(tensor => TinyModel.Array(tensor.Slice(tensor.Parameter)))];
        Train(whole, steps: 50, accumulation: 1);
        Train(parts, steps: 50, accumulation: 8);

        double difference = 0, update = 0;
        foreach ((NamedTensor a, NamedTensor b, float[] start) in whole.NamedTensors().Zip(parts.NamedTensors(), initial))
        {
            float[] x = TinyModel.Array(a.Slice(a.Parameter)), y = TinyModel.Array(b.Slice(b.Parameter));
            difference += x.Zip(y).Sum(pair => Math.Pow(pair.First - pair.Second, 2));
            update += x.Zip(start).Sum(pair => Math.Pow(pair.First - pair.Second, 2));
        }

        Assert.True(update > 0);
        Assert.InRange(Math.Sqrt(difference) / Math.Sqrt(update), 0, 1e-4);
    }

    [Theory]
    [InlineData(ScalarType.Float32, 0.0)]
    [InlineData(ScalarType.BFloat16, 0.0)]
    [InlineData(ScalarType.Float32, 0.3)]
    public void Recomputation_changes_no_bit(ScalarType dtype, double dropout)
    {
        QwenConfig config = TinyModel.Config();
        LoraConfig? lora = dropout > 0 ? new LoraConfig { Rank = 4, Alpha = 8, Dropout = dropout } : null;
        PackedBatch batch = TinyModel.Batch(4, 40, 21, 5);
        using QwenModel plain = TinyModel.Create(config, dtype: dtype, lora: lora);
        using QwenModel recomputed = TinyModel.Create(config, recompute: true, dtype: dtype, lora: lora);

        double expected = TinyModel.Backward(plain, batch, 0.01, dropoutSeed: 99);
        double actual = TinyModel.Backward(recomputed, batch, 0.01, dropoutSeed: 99);

        Assert.Equal(expected, actual);
        Dictionary<string, float[]> gradients = TinyModel.Gradients(recomputed);
        foreach ((string name, float[] gradient) in TinyModel.Gradients(plain))
        {
            Assert.True(gradient.AsSpan().SequenceEqual(gradients[name]), name);
        }
    }

    [Fact]
    public void Dropout_differs_between_seeds_and_is_off_without_one()
    {
        QwenConfig config = TinyModel.Config();
        PackedBatch batch = TinyModel.Batch(4, 40);
        using QwenModel model = TinyModel.Create(config, lora: new LoraConfig { Rank = 4, Alpha = 32, Dropout = 0.5 });

        double off = TinyModel.Backward(model, batch, 1);
        double first = TinyModel.Backward(model, batch, 1, dropoutSeed: 1);
        double second = TinyModel.Backward(model, batch, 1, dropoutSeed: 2);

        Assert.Equal(off, TinyModel.Backward(model, batch, 1));
        Assert.NotEqual(off, first);
        Assert.NotEqual(first, second);
    }

    [Fact]
    public void Flash_and_math_attention_agree_in_the_whole_model()
    {
        QwenConfig config = TinyModel.Config();
        PackedBatch batch = TinyModel.Batch(5, 100, 31, 3);
        using QwenModel flash = TinyModel.Create(config, AttentionKind.Flash);
        using QwenModel math = TinyModel.Create(config, AttentionKind.Math);
        TinyModel.Backward(flash, batch, 0.01);
        TinyModel.Backward(math, batch, 0.01);
        AssertClose(TinyModel.Gradients(math), TinyModel.Gradients(flash), 1e-5);
    }

    [Fact]
    public void Generation_with_a_cache_gives_the_tokens_of_whole_forward_passes()
    {
        QwenConfig config = TinyModel.Config();
        using QwenModel model = TinyModel.Create(config);
        List<int> tokens = [1, 5, 9, 40];
        int[] generated = [.. TextGenerator.Continue(model, tokens, 20, 0, [], seed: 0)];
        foreach (int token in generated)
        {
            using DisposeScope scope = NewDisposeScope();
            using var _ = no_grad();
            using ModelInput input = ModelInput.Sequence([.. tokens], 0, CPU);
            Assert.Equal(model.Logits(input).select(0, tokens.Count - 1).argmax().ToInt64(), token);
            tokens.Add(token);
        }
    }

    [Fact]
    public void A_training_step_leaves_no_tensor_behind()
    {
        QwenConfig config = TinyModel.Config();
        using QwenModel model = TinyModel.Create(config, recompute: true);
        PackedBatch batch = TinyModel.Batch(6, 30, 12);
        TinyModel.Backward(model, batch, 0.01);
        long before = Tensor.TotalCount;
        for (int i = 0; i < 20; i++)
        {
            TinyModel.Backward(model, batch, 0.01);
        }

        Assert.Equal(before, Tensor.TotalCount);
    }

    [Fact]
    public void Without_float32_sums_a_step_of_one_backward_pass_has_the_same_bits()
    {
        QwenConfig config = TinyModel.Config();
        using QwenModel summed = TinyModel.Create(config, dtype: ScalarType.BFloat16), direct = TinyModel.Create(config, dtype: ScalarType.BFloat16);
        Train(summed, 3, accumulation: 1);
        Train(direct, 3, accumulation: 1, sums: false);
        foreach ((NamedTensor one, NamedTensor other) in summed.TrainedTensors().Zip(direct.TrainedTensors()))
        {
            Assert.True(one.Parameter.eq(other.Parameter).all().ToBoolean(), one.Name);
        }
    }

    private static void Train(QwenModel model, int steps, int accumulation, bool sums = true)
    {
        var config = new OptimizerConfig { LearningRate = 1e-3 };
        using var optimizer = new AdamW(model.TrainedTensors(), config, sums);
        for (int step = 1; step <= steps; step++)
        {
            PackedBatch batch = TinyModel.Batch(100 + step, 20, 9, 31, 14, 8, 25, 11, 16);
            double scale = 1.0 / batch.TrainedTokens;
            foreach (PackedBatch part in accumulation == 1 ? [batch] : TinyModel.Separate(batch))
            {
                TinyModel.Backward(model, part, scale);
                optimizer.AccumulateGradients();
            }

            optimizer.Step(step, 1e-3, GradientClip.Scale(optimizer.GradientNorm(), config.MaxGradientNorm));
        }
    }

    private static QwenModel Snapshot(GoldenCase golden)
    {
        var model = new QwenModel(golden.Config, new ModelPlacement(ScalarType.Float32, CPU), AttentionBackend.Flash);
        using SnapshotWeights snapshot = SnapshotWeights.Open(golden.Directory);
        Weights.Load(model, snapshot);
        return model;
    }

    private static void ClearGradients(QwenModel model)
    {
        foreach (NamedTensor tensor in model.TrainedTensors())
        {
            tensor.Parameter.grad = null;
        }
    }

    private static void AssertClose(Dictionary<string, float[]> expected, Dictionary<string, float[]> actual, double tolerance)
    {
        Assert.Equal(expected.Keys, actual.Keys);
        foreach ((string name, float[] values) in expected)
        {
            double largest = values.Max(Math.Abs);
            double error = values.Zip(actual[name]).Max(pair => Math.Abs(pair.First - pair.Second));
            Assert.True(error <= tolerance * largest, $"{name}: {error} of {largest}");
        }
    }
}

/// <summary>For tests that count the tensors of the whole process.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class Alone
{
    public const string Name = "alone";
}
