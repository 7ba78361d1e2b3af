using Trainer.Contracts;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>The low-rank adapters of a model, under PEFT's names.</summary>
public sealed class LoraAdapters
{
    /// <summary>The linear layers of a block, by their Hugging Face names.</summary>
    public static readonly IReadOnlyList<string> LinearNames = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

    private readonly List<LoraAdapter> _adapters = [];

    /// <exception cref="JobInputException">A target is not the name of a linear layer.</exception>
    public LoraAdapters(QwenModel model, LoraConfig lora, ulong seed)
    {
        using DisposeScope scope = NewDisposeScope();
        Config = lora;
        Targets = Resolve(lora.TargetModules);
        double scale = lora.Rslora ? lora.Alpha / Math.Sqrt(lora.Rank) : lora.Alpha / lora.Rank;
        foreach (LinearLayer layer in model.Blocks.SelectMany(block => block.LinearLayers))
        {
            foreach (LinearLayer.Part part in layer.Parts.Where(part => Targets.Contains(part.Name)))
            {
                ulong salt = ((ulong)_adapters.Count + 1) * 0x9E3779B97F4A7C15;
                var adapter = new LoraAdapter(part.FullName, layer.InFeatures, part.OutFeatures, lora.Rank, scale, lora.Dropout, salt, model.Placement);
                adapter.A.DetachFromDisposeScope();
                adapter.B.DetachFromDisposeScope();
                layer.Attach(part, adapter);
                _adapters.Add(adapter);
            }
        }

        // PEFT's own initialisation: A as kaiming_uniform(a = sqrt(5)), that is U(-1/sqrt(inputs), 1/sqrt(inputs)); B zero.
        using var _ = no_grad();
        manual_seed(unchecked((long)(seed ^ 0x10DA)));
        foreach (LoraAdapter adapter in _adapters)
        {
            double bound = 1 / Math.Sqrt(adapter.A.shape[1]);
            // Drawn on the CPU, so that the same seed gives the same adapters on every device.
            using DisposeScope inner = NewDisposeScope();
            adapter.A.copy_(empty(adapter.A.shape, dtype: ScalarType.Float32).uniform_(-bound, bound));
        }
    }

    public LoraConfig Config { get; }

    public IReadOnlyList<string> Targets { get; }

    public IReadOnlyList<LoraAdapter> All => _adapters;

    /// <exception cref="JobInputException">A target is not the name of a linear layer.</exception>
    public static IReadOnlyList<string> Resolve(IReadOnlyList<string> targets)
    {
        if (targets is ["all-linear"])
        {
            return LinearNames;
        }

        foreach (string target in targets.Where(target => !LinearNames.Contains(target)))
        {
            throw new JobInputException($"lora.target_modules: '{target}' is not a linear layer; choose from {string.Join(", ", LinearNames)}, or all-linear alone");
        }

        return [.. targets.Distinct()];
    }

    public IEnumerable<NamedTensor> NamedTensors()
    {
        foreach (LoraAdapter adapter in _adapters)
        {
            yield return new NamedTensor($"base_model.model.{adapter.FullName}.lora_A.weight", adapter.A, 0, adapter.A.shape[0]);
            yield return new NamedTensor($"base_model.model.{adapter.FullName}.lora_B.weight", adapter.B, 0, adapter.B.shape[0]);
        }
    }
}
