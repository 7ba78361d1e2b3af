using Trainer.Worker.Checkpoints;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>Fills a model's weights: from a Hugging Face snapshot, from an adapter, or at random.</summary>
public static class Weights
{
    /// <exception cref="JobInputException">A tensor is missing or has another shape than config.json says.</exception>
    public static void Load(QwenModel model, SnapshotWeights snapshot)
    {
        var problems = SnapshotLayout.Problems(model.Config, snapshot).Take(10).ToList();
        if (problems.Count > 0)
        {
            throw new JobInputException(string.Join('\n', problems));
        }

        foreach (NamedTensor tensor in model.NamedTensors())
        {
            Copy(snapshot, tensor.Name, tensor);
        }
    }

    /// <summary>Reads PEFT's adapter_model.safetensors into attached adapters.</summary>
    /// <exception cref="JobInputException">The adapter has other layers, ranks or shapes than those attached.</exception>
    public static void LoadAdapter(LoraAdapters adapters, SnapshotWeights snapshot)
    {
        var expected = adapters.NamedTensors().ToList();
        foreach (NamedTensor tensor in expected)
        {
            if (!snapshot.Contains(tensor.Name))
            {
                throw new JobInputException($"{snapshot.Directory}: tensor {tensor.Name} is missing; adapter_config.json asks for it");
            }

            if (!snapshot.Entry(tensor.Name).Shape.SequenceEqual(tensor.Parameter.shape))
            {
                throw new JobInputException($"{snapshot.Directory}: {tensor.Name} has shape [{string.Join(", ", snapshot.Entry(tensor.Name).Shape)}], "
                    + $"but the model and adapter_config.json ask for [{string.Join(", ", tensor.Parameter.shape)}]");
            }

            Copy(snapshot, tensor.Name, tensor);
        }

        string? unknown = snapshot.Names.Except(expected.Select(tensor => tensor.Name)).FirstOrDefault();
        if (unknown is not null)
        {
            throw new JobInputException($"{snapshot.Directory}: tensor {unknown} belongs to no layer that adapter_config.json names");
        }
    }

    /// <summary>
    /// transformers' initialisation: normal(0, initializer_range) for matrices, zeros for biases, ones for norms. The first Qwen's code
    /// divides what adds to the residual stream by the square root of how often that is.
    /// </summary>
    /// <param name="drawOn">Null: the CPU, so that the same seed gives the same model on every device. Billions are drawn sooner where they stay.</param>
    public static void Initialize(QwenModel model, int seed, Device? drawOn = null)
    {
        using var _ = no_grad();
        manual_seed(seed);
        foreach (NamedTensor tensor in model.NamedTensors())
        {
            using DisposeScope scope = NewDisposeScope();
            Parameter parameter = tensor.Parameter;
            Tensor rows = tensor.Slice(parameter);
            if (parameter.shape.Length == 2)
            {
                double deviation = model.Config.InitializerRange
                    / (tensor.Name.EndsWith(".c_proj.weight", StringComparison.Ordinal) ? Math.Sqrt(2 * model.Config.NumLayers) : 1);
                // Drawn in float32, so that the same seed gives the same model in every dtype.
                rows.copy_(empty(rows.shape, dtype: ScalarType.Float32, device: drawOn).normal_(0, deviation));
            }
            else
            {
                rows.fill_(tensor.Name.EndsWith(".bias", StringComparison.Ordinal) ? 0 : 1);
            }
        }
    }

    private static void Copy(SnapshotWeights snapshot, string name, NamedTensor target)
    {
        using DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        TensorEntry entry = snapshot.Entry(name);
        Tensor source = empty([.. entry.Shape], dtype: TensorTypes.ToTorch(entry.DType));
        snapshot.Read(name, source.DataPointer, entry.Length);
        if (!double.IsFinite(source.to(ScalarType.Float32).abs().max().ToDouble()))
        {
            throw new JobInputException($"{snapshot.FileOf(name)}: {name} holds NaN or infinity; download the file again");
        }

        target.Slice(target.Parameter).copy_(source);
    }
}
