using Trainer.Contracts;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>The low-rank adapters of a model, under PEFT's names.</summary>
public sealed class LoraAdapters
{
    private readonly List<LoraAdapter> _adapters = [];

    /// <exception cref="JobInputException">A target is not the name of a linear layer.</exception>
    public LoraAdapters(QwenModel model, LoraConfig lora, ulong seed)
    {
        using DisposeScope scope = NewDisposeScope();
        Config = lora;
        Targets = Resolve(lora.TargetModules, model.Config.Names);
        double scale = lora.Rslora ? lora.Alpha / Math.Sqrt(lora.Rank) : lora.Alpha / lora.Rank;
        foreach (LinearLayer layer in model.Blocks.SelectMany(block => block.LinearLayers))
        {
            foreach (LinearLayer.Part part in layer.Parts.Where(part => Targets.Any(target => part.FullName.EndsWith($".{target}", StringComparison.Ordinal))))
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

    /// <summary>As PEFT takes them: each stands for all layers whose path ends with it.</summary>
    /// <exception cref="JobInputException">A target is not the name of a linear layer.</exception>
    public static IReadOnlyList<string> Resolve(IReadOnlyList<string> targets, SnapshotNames names)
    {
        if (targets is ["all-linear"])
        {
            return names.LinearNames;
        }

        foreach (string target in targets.Where(target => !names.LinearPaths.Any(path => $".{path}".EndsWith($".{target}", StringComparison.Ordinal))))
        {
            throw new JobInputException($"lora.target_modules: '{target}' is not a linear layer of this model; choose from {string.Join(", ", names.LinearNames)}, or all-linear alone");
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
