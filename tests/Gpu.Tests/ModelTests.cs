using Trainer.Contracts;
using Trainer.Worker;
using Trainer.Worker.Attention;
using Trainer.Worker.Data;
using Trainer.Worker.Model;
using Trainer.Worker.Verification;
using TorchSharp;
using static TorchSharp.torch;

namespace Gpu.Tests;

/// <summary>Whole models on the GPU: golden values, recomputation, accumulation.</summary>
public sealed class ModelTests
{
    [Fact]
    public void Every_kernel_agrees_with_its_cpu_twin()
    {
        var results = KernelCheck.Run(Gpu.Device).ToList();
        Assert.True(results.Count >= 11);
        Assert.All(results, result => Assert.True(result.Passed, result.ToString()));
    }

    [Theory]
    [InlineData("qwen1-base")]
    [InlineData("qwen2-tied")]
    [InlineData("qwen3-untied")]
    [InlineData("qwen2-lora")]
    public void Golden_cases_hold_on_the_gpu(string name)
    {
        using GoldenCase golden = GoldenCase.Open(Gpu.File("tests", "golden", name));
        CaseResult result = new Verifier(golden, AttentionKind.Auto, DeviceKind.Cuda).Run();
        Assert.All(result.Checks, check => Assert.True(check.Passed, check.ToString()));
    }

    [Fact]
    public void Recomputation_changes_no_bit_of_the_gradients()
    {
        use_deterministic_algorithms(true);
        using DisposeScope scope = NewDisposeScope();
        using QwenModel plain = Model(recompute: false), again = Model(recompute: true);
        Backward(plain, 1, 2);
        Backward(again, 1, 2);
        Assert.Equal(Gradients(plain), Gradients(again));
    }

    [Fact]
    public void Accumulated_micro_batches_give_the_gradients_of_one_batch()
    {
        using DisposeScope scope = NewDisposeScope();
        using QwenModel together = Model(recompute: false), apart = Model(recompute: false);
        Backward(together, 1, 2);
        Backward(apart, 1);
        Backward(apart, 2);
        foreach ((NamedTensor a, NamedTensor b) in together.TrainedTensors().Zip(apart.TrainedTensors()))
        {
            using var _ = no_grad();
            Tensor x = a.Parameter.grad!.to(ScalarType.Float32), y = b.Parameter.grad!.to(ScalarType.Float32);
            double error = ((x - y).norm() / x.norm()).ToDouble();
            Assert.True(error < 2e-2, $"{a.Name}: {error}");
        }
    }

    private static QwenModel Model(bool recompute)
    {
        QwenConfig config = QwenConfig.Load(Gpu.File("configs", "demo", "model.json"));
        var model = new QwenModel(config, new ModelPlacement(ScalarType.BFloat16, Gpu.Device), AttentionBackend.Flash, recompute);
        Weights.Initialize(model, seed: 7);
        return model;
    }

    /// <summary>One micro-batch of a document for each seed.</summary>
    private static void Backward(QwenModel model, params int[] seeds)
    {
        const int Length = 100;
        int[] tokens = [.. seeds.SelectMany(seed => Tokens(seed))];
        var batch = new PackedBatch
        {
            Tokens = tokens,
            Labels = [.. tokens.Select((token, i) => i % Length == Length - 1 ? PackedBatch.Ignored : (long)tokens[i + 1])],
            Positions = [.. tokens.Select((_, i) => i % Length)],
            CuSeqlens = [.. Enumerable.Range(0, seeds.Length + 1).Select(document => document * Length)],
            Documents = [.. Enumerable.Range(0, seeds.Length)],
            TrainedTokens = seeds.Length * (Length - 1),
        };
        using DisposeScope scope = NewDisposeScope();
        using ModelInput input = ModelInput.From(batch, Gpu.Device);
        model.Loss(input, 0.01).backward();

        static IEnumerable<int> Tokens(int seed)
        {
            var random = new Random(seed);
            return Enumerable.Range(0, Length).Select(_ => random.Next(1000)).ToArray();
        }
    }

    private static byte[] Gradients(QwenModel model) => [.. model.TrainedTensors().SelectMany(tensor => Gpu.Bits(tensor.Parameter.grad!))];
}
