using Trainer.Contracts;
using Trainer.Worker.Attention;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Data;
using Trainer.Worker.Export;
using Trainer.Worker.Model;
using Trainer.Worker.Training;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Verification;

/// <summary>
/// Trains a golden case in float32 and compares logits, loss, gradients, six optimizer steps, greedy tokens and merged
/// weights with what transformers and peft computed; once packed without padding and once padded.
/// </summary>
public sealed class Verifier(GoldenCase golden, AttentionKind attention, DeviceKind device = DeviceKind.Cpu)
{
    private const double LogitsTolerance = 2e-4;
    private const double LossTolerance = 1e-5;
    private const double GradientTolerance = 1e-4;
    private const double GradientFloor = 1e-6;
    private const double StepLossTolerance = 1e-4;
    private const double GradientNormTolerance = 1e-3;
    private const double MergedTolerance = 1e-5;

    private readonly List<Check> _checks = [];
    private readonly Device _device = ComputeDevice.Choose(device);

    public CaseResult Run()
    {
        foreach (bool padded in new[] { false, true })
        {
            using DisposeScope scope = NewDisposeScope();
            using QwenModel model = Load();
            string path = padded ? "padded" : "packed";
            CheckLogits(model, padded, path);
            CheckLongDocuments(model, path);
            using var noise = new UpdateNoise(golden.Optimizer, CheckLossAndGradients(model, padded, path));
            CheckSteps(model, padded, path, noise);
            CheckGreedy(model, path);
            CheckMerged(model, path, noise);
        }

        return CaseResult.Of(golden.Name, _checks);
    }

    private QwenModel Load()
    {
        if (_device.type == DeviceType.CUDA)
        {
            // A job of this process may have asked for it; these numbers have tolerances.
            use_deterministic_algorithms(false);
        }

        var placement = new ModelPlacement(ScalarType.Float32, _device);
        AttentionRequest request = AttentionRequest.Here(_device, ScalarType.Float32, golden.Config.HeadDim, golden.Config.LayerSlides.Contains(true), deterministic: false);
        var model = new QwenModel(golden.Config, placement, AttentionSelector.Choose(attention, request).Backend);
        using (SnapshotWeights snapshot = SnapshotWeights.Open(golden.Directory))
        {
            Weights.Load(model, snapshot);
        }

        if (golden.HasAdapter)
        {
            LoraConfig lora = PeftAdapter.ReadConfig(golden.AdapterDirectory);
            using SnapshotWeights adapter = SnapshotWeights.Open(golden.AdapterDirectory, "adapter_model");
            Weights.LoadAdapter(model.AttachLora(lora, seed: 0), adapter);
        }

        return model;
    }

    private void CheckLogits(QwenModel model, bool padded, string path)
    {
        using DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        using ModelInput input = Input(golden.Initial, padded);
        var pairs = golden.Initial.RealTokens(padded).ToList();
        Tensor expected = golden.Logits().view(-1, golden.Config.VocabSize).index_select(0, Indices(pairs.Select(pair => pair.Golden)));
        Tensor actual = model.Logits(input).cpu().index_select(0, Indices(pairs.Select(pair => pair.Ours)));
        _checks.Add(Check.Of($"{path} logits", MaxDifference(actual, expected), LogitsTolerance));
    }

    private void CheckLongDocuments(QwenModel model, string path)
    {
        foreach ((int i, (int[] tokens, Tensor expected)) in golden.LongDocuments().Index())
        {
            using DisposeScope scope = NewDisposeScope();
            using var cache = new GenerationCache(model.Config, tokens.Length, _device);
            Tensor actual = model.Continue(tokens, cache, tokens.Length).cpu();
            _checks.Add(Check.Of($"{path} generation logits: document {i} of {tokens.Length} tokens", MaxDifference(actual, expected), LogitsTolerance));
        }
    }

    /// <returns>By how much the gradients of each tensor differ at most.</returns>
    private Dictionary<string, double> CheckLossAndGradients(QwenModel model, bool padded, string path)
    {
        var differences = new Dictionary<string, double>();
        using DisposeScope scope = NewDisposeScope();
        using var optimizer = new AdamW(model.TrainedTensors(), golden.Optimizer);
        double loss = Backward(model, golden.Initial, padded);
        _checks.Add(Check.Of($"{path} loss", Math.Abs(loss - golden.Loss) / Math.Abs(golden.Loss), LossTolerance));

        var ours = optimizer.Trained.ToDictionary(tensor => tensor.Name);
        foreach ((string name, Tensor expected) in golden.Gradients())
        {
            if (!ours.Remove(name, out NamedTensor? tensor))
            {
                throw new JobInputException($"{golden.Directory}: golden.safetensors has a gradient of {name}, which this model does not train");
            }

            double largest = expected.abs().max().ToDouble();
            Tensor actual = tensor.Slice(optimizer.Gradient(tensor));
            if (!actual.shape.SequenceEqual(expected.shape))
            {
                throw new JobInputException($"{golden.Directory}: grad.{name} has shape [{string.Join(", ", expected.shape)}], the parameter [{string.Join(", ", actual.shape)}]");
            }

            double difference = differences[name] = MaxDifference(actual, expected);
            _checks.Add(Check.Of($"{path} gradient {name}", difference, (GradientTolerance * largest) + GradientFloor));
        }

        foreach (string name in ours.Keys)
        {
            throw new JobInputException($"{golden.Directory}: golden.safetensors has no gradient of {name}");
        }

        return differences;
    }

    private void CheckSteps(QwenModel model, bool padded, string path, UpdateNoise noise)
    {
        using var optimizer = new AdamW(model.TrainedTensors(), golden.Optimizer);
        for (int step = 0; step < golden.Steps.Count; step++)
        {
            using DisposeScope scope = NewDisposeScope();
            double loss = Backward(model, golden.Steps[step], padded);
            double norm = optimizer.GradientNorm();
            optimizer.Step(step + 1, golden.Optimizer.LearningRate, GradientClip.Scale(norm, golden.Optimizer.MaxGradientNorm));
            noise.Add(optimizer, step + 1);
            _checks.Add(Check.Of($"{path} step {step} loss", Math.Abs(loss - golden.Losses[step]), StepLossTolerance));
            _checks.Add(Check.Of($"{path} step {step} gradient norm", Math.Abs(norm - golden.GradientNorms[step]) / golden.GradientNorms[step], GradientNormTolerance));
        }
    }

    private void CheckGreedy(QwenModel model, string path)
    {
        int[] prompt = [.. golden.Initial.InputIds.Take(GoldenCase.PromptTokens).Select(id => (int)id)];
        IEnumerable<int> tokens = prompt.Concat(TextGenerator.Continue(model, prompt, golden.Greedy.Count - prompt.Length, 0, [], seed: 0));
        int wrong = tokens.Zip(golden.Greedy).Count(pair => pair.First != pair.Second);
        _checks.Add(Check.Of($"{path} greedy tokens", wrong, 0));
    }

    private void CheckMerged(QwenModel model, string path, UpdateNoise noise)
    {
        if (model.Lora is not { } lora)
        {
            return;
        }

        using DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        using SnapshotWeights merged = SnapshotWeights.Open(golden.MergedDirectory);
        // Of the element that is nearest to its own tolerance, or beyond it.
        double worst = 0, error = 0, tolerance = MergedTolerance;
        foreach (NamedTensor tensor in model.NamedTensors())
        {
            using DisposeScope inner = NewDisposeScope();
            TensorEntry entry = merged.Entry(tensor.Name);
            Tensor expected = empty([.. entry.Shape], dtype: TensorTypes.ToTorch(entry.DType));
            merged.Read(tensor.Name, expected.DataPointer, entry.Length);
            Tensor difference = (PeftAdapter.Merged(tensor, lora).cpu().to(ScalarType.Float64) - expected.to(ScalarType.Float64)).abs().flatten();
            Tensor allowed = full_like(difference, MergedTolerance);
            if (lora.All.FirstOrDefault(adapter => $"{adapter.FullName}.weight" == tensor.Name) is { } adapter)
            {
                allowed = allowed.maximum(noise.OfDelta(adapter).cpu().to(ScalarType.Float64).flatten());
            }

            Tensor share = difference / allowed;
            Tensor element = share.argmax();
            // A share that is no number is the worst, and stays it.
            if (!double.IsNaN(worst) && !(share[element].ToDouble() <= worst))
            {
                (worst, error, tolerance) = (share[element].ToDouble(), difference[element].ToDouble(), allowed[element].ToDouble());
            }
        }

        _checks.Add(Check.Of($"{path} merged weights", error, tolerance));
    }

    private double Backward(QwenModel model, GoldenBatch batch, bool padded)
    {
        using DisposeScope scope = NewDisposeScope();
        PackedBatch packed = batch.Pack(padded);
        using ModelInput input = ModelInput.From(packed, _device);
        Tensor loss = model.Loss(input, 1.0 / packed.TrainedTokens);
        loss.backward();
        return loss.ToDouble();
    }

    private ModelInput Input(GoldenBatch batch, bool padded) => ModelInput.From(batch.Pack(padded), _device);

    private static Tensor Indices(IEnumerable<long> indices) => tensor(indices.ToArray());

    private static double MaxDifference(Tensor actual, Tensor expected) =>
        (actual.cpu().to(ScalarType.Float64) - expected.to(ScalarType.Float64)).abs().max().ToDouble();
}
