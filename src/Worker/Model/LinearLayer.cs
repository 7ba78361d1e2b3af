using Trainer.Worker.Kernels;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>
/// One GEMM that stands for one or more Hugging Face linear layers with the same input, stacked along the output
/// (q, k and v; gate and up), each with an optional low-rank adapter.
/// </summary>
public sealed class LinearLayer : IDisposable
{
    private readonly List<(Part Part, LoraAdapter Adapter)> _adapters = [];
    private LowRankFactors? _factors;

    /// <param name="prefix">Hugging Face path of the parent, e.g. "model.layers.0.self_attn".</param>
    /// <param name="parts">Names and output sizes, in the order in which they are stacked.</param>
    public LinearLayer(string prefix, int inFeatures, IReadOnlyList<(string Name, int Rows)> parts, bool bias, ModelPlacement placement)
    {
        InFeatures = inFeatures;
        var layout = new List<Part>();
        int row = 0;
        foreach ((string name, int outFeatures) in parts)
        {
            layout.Add(new Part($"{prefix}.{name}", name, row, outFeatures));
            row += outFeatures;
        }

        Parts = layout;
        Weight = new Parameter(empty([row, inFeatures], dtype: placement.Dtype, device: placement.Device));
        Bias = bias ? new Parameter(empty([row], dtype: placement.Dtype, device: placement.Device)) : null;
    }

    public int InFeatures { get; }

    public IReadOnlyList<Part> Parts { get; }

    /// <summary>[sum of outputs, inputs].</summary>
    public Parameter Weight { get; }

    /// <summary>[sum of outputs].</summary>
    public Parameter? Bias { get; }

    public IEnumerable<(Part Part, LoraAdapter Adapter)> Adapters => _adapters;

    /// <summary>The adapters as products read them; null without any.</summary>
    public LowRankFactors? Factors => _adapters.Count == 0 ? null
        : _factors ??= new LowRankFactors([.. _adapters.Select(each => each.Adapter.ChangeOf(each.Part))], Weight.dtype);

    /// <summary>x [T, inputs] to [T, sum of outputs].</summary>
    /// <param name="dropoutSeed">Differs for each micro-batch; recomputation passes the same again.</param>
    /// <param name="onlyGradients">See <see cref="Ops.Linear(Tensor, Tensor, Tensor?, bool)"/>.</param>
    public Tensor Forward(Tensor x, ulong dropoutSeed, bool onlyGradients = false) => _adapters.Count == 0
        ? Ops.Linear(x, Weight, Bias, onlyGradients)
        : Ops.Linear(x, Weight, Bias, Factors!, dropoutSeed == 0 ? 0 : _adapters[0].Adapter.Dropout, dropoutSeed, onlyGradients);

    /// <summary>All before the first forward pass, and of one dropout.</summary>
    public void Attach(Part part, LoraAdapter adapter) => _adapters.Add((part, adapter));

    public void Dispose() => _factors?.Dispose();

    /// <summary>Views of the stacked tensors under their Hugging Face names.</summary>
    public IEnumerable<NamedTensor> NamedTensors()
    {
        foreach (Part part in Parts)
        {
            yield return new NamedTensor($"{part.FullName}.weight", Weight, part.Row, part.OutFeatures);
            if (Bias is not null)
            {
                yield return new NamedTensor($"{part.FullName}.bias", Bias, part.Row, part.OutFeatures);
            }
        }
    }

    /// <summary>One Hugging Face linear layer: its rows in the stacked weight.</summary>
    public sealed record Part(string FullName, string Name, int Row, int OutFeatures);
}

/// <summary>Low-rank adapter of one linear layer: scale * B (A dropout(x)).</summary>
public sealed class LoraAdapter
{
    private readonly ulong _salt;

    /// <param name="salt">Makes the dropout masks of two adapters differ.</param>
    public LoraAdapter(string fullName, int inFeatures, int outFeatures, int rank, double scale, double dropout, ulong salt, ModelPlacement placement)
    {
        FullName = fullName;
        Scale = scale;
        Dropout = dropout;
        _salt = salt;
        A = new Parameter(empty([rank, inFeatures], dtype: ScalarType.Float32, device: placement.Device));
        B = new Parameter(zeros([outFeatures, rank], dtype: ScalarType.Float32, device: placement.Device));
    }

    /// <summary>Hugging Face path of the adapted layer.</summary>
    public string FullName { get; }

    /// <summary>alpha / r, or alpha / sqrt(r) with rsLoRA.</summary>
    public double Scale { get; }

    /// <summary>Probability.</summary>
    public double Dropout { get; }

    /// <summary>[rank, inputs], float32.</summary>
    public Parameter A { get; }

    /// <summary>[outputs, rank], float32.</summary>
    public Parameter B { get; }

    public LowRank ChangeOf(LinearLayer.Part part) => new(part.Row, A, B, Scale, _salt);

    /// <summary>The weight's change, [outputs, inputs] in float32.</summary>
    public Tensor Delta() => matmul(B, A) * Scale;
}

/// <summary>Where and in which type a model's weights lie.</summary>
public sealed record ModelPlacement(ScalarType Dtype, Device Device);

/// <summary>Rows of a parameter under the name that Hugging Face gives them.</summary>
public sealed record NamedTensor(string Name, Parameter Parameter, long Row, long Rows)
{
    public bool IsWhole => Row == 0 && Rows == Parameter.shape[0];

    /// <summary>The same rows of another tensor of the parameter's shape (its gradient, a moment).</summary>
    public Tensor Slice(Tensor tensor) => IsWhole ? tensor : tensor.narrow(0, Row, Rows);
}
