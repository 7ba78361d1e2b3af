using System.Diagnostics;
using Trainer.Contracts;
using Trainer.Worker.Attention;
using Trainer.Worker.Data;
using Trainer.Worker.Model;
using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Training;

/// <summary>Times whole optimizer steps (forward, backward, clip, AdamW) of a random model on packed random tokens.</summary>
public static class TrainingBenchmark
{
    private const int WarmUps = 3;

    /// <param name="lora">Null: all weights are trained.</param>
    /// <param name="documents">Of the one micro-batch, each of so many tokens.</param>
    /// <param name="log">Takes the reasons of the attention's choice.</param>
    public static TrainingMeasurement Run(
        QwenConfig config, Device device, AttentionKind attention, bool deterministic, bool recompute, LoraConfig? lora, int documents, int tokens, int steps, Action<string> log)
    {
        using DisposeScope scope = NewDisposeScope();
        bool onGpu = device.type == DeviceType.CUDA;
        if (onGpu)
        {
            use_deterministic_algorithms(deterministic);
            Cuda.AllowAttention(flash: true, memoryEfficient: true, cudnn: true, math: true);
            Cuda.EmptyCache();
        }

        ScalarType dtype = TensorTypes.Compute(DType.Auto, device);
        AttentionChoice choice = AttentionSelector.Choose(
            attention, AttentionRequest.Here(device, dtype, config.HeadDim, config.LayerSlides.Contains(true), deterministic));
        log(choice.Explanation);
        using var model = new QwenModel(config, new ModelPlacement(dtype, device), choice.Backend, recompute);
        Weights.Initialize(model, seed: 1, drawOn: device);
        if (lora is not null)
        {
            model.AttachLora(lora, seed: 1);
        }

        using var optimizer = new AdamW(model.TrainedTensors(), new OptimizerConfig(), sums: false);
        PackedBatch batch = Random(config.VocabSize, documents, tokens);
        var milliseconds = new List<double>();
        for (int step = 1; step <= WarmUps + steps; step++)
        {
            if (onGpu && step == WarmUps + 1)
            {
                Cuda.ResetPeak(device);
            }

            long begun = Stopwatch.GetTimestamp();
            Step(model, optimizer, batch, step);
            if (onGpu)
            {
                Cuda.Synchronize();
            }

            if (step > WarmUps)
            {
                milliseconds.Add(Stopwatch.GetElapsedTime(begun).TotalMilliseconds);
            }
        }

        milliseconds.Sort();
        double median = milliseconds[milliseconds.Count / 2];
        return new TrainingMeasurement(choice.Backend.Name, median, documents * (double)tokens / median * 1000, onGpu ? Cuda.Memory(device).Peak : null);
    }

    private static void Step(QwenModel model, AdamW optimizer, PackedBatch batch, int step)
    {
        using DisposeScope scope = NewDisposeScope();
        using ModelInput input = ModelInput.From(batch, model.Placement.Device);
        Tensor loss = model.Loss(input, 1.0 / batch.TrainedTokens);
        loss.backward();
        optimizer.AccumulateGradients();
        double norm = optimizer.GradientNorm();
        optimizer.Step(step, 1e-5, GradientClip.Scale(norm, 1));
    }

    private static PackedBatch Random(int vocabulary, int documents, int tokens)
    {
        var random = new Random(1);
        int[] ids = [.. Enumerable.Range(0, documents * tokens).Select(_ => random.Next(vocabulary))];
        return new PackedBatch
        {
            Tokens = ids,
            // The last token of a document predicts nothing.
            Labels = [.. ids.Select((_, i) => (i + 1) % tokens == 0 ? PackedBatch.Ignored : (long)ids[i + 1])],
            Positions = [.. ids.Select((_, i) => i % tokens)],
            CuSeqlens = [.. Enumerable.Range(0, documents + 1).Select(document => document * tokens)],
            Documents = [.. Enumerable.Range(0, documents)],
            TrainedTokens = documents * (tokens - 1),
        };
    }
}

/// <param name="PeakBytes">Of GPU memory during the measured steps; null on the CPU.</param>
public sealed record TrainingMeasurement(string Attention, double MillisecondsPerStep, double TokensPerSecond, long? PeakBytes);
