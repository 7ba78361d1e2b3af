using Trainer.Contracts;
using Trainer.Worker.Attention;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Data;
using Trainer.Worker.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Training;

/// <summary>What a job's model section names, loaded: architecture, weights, adapters, tokenizer and chat template.</summary>
public sealed class JobModel : IDisposable
{
    private JobModel(QwenModel model, Tokenizer tokenizer, ChatTemplate template, string tokenizerDirectory)
    {
        Model = model;
        Tokenizer = tokenizer;
        Template = template;
        TokenizerDirectory = tokenizerDirectory;
    }

    public QwenModel Model { get; }

    public Tokenizer Tokenizer { get; }

    public ChatTemplate Template { get; }

    public string TokenizerDirectory { get; }

    /// <exception cref="JobInputException">A file is missing or damaged, or can't be run here.</exception>
    public static JobModel Load(JobConfig job, Action<string> log)
    {
        // Reading the tokenizer and loading libtorch take about as long, and neither needs the other.
        Task<Tokenizer> reading = Task.Run(() => Tokenizer.Load(TokenizerPath(job.Model)));
        QwenConfig config = QwenConfig.Load(ConfigPath(job.Model));
        Device device = ComputeDevice.Choose(job.Model.Device);
        Tokenizer tokenizer = reading.GetAwaiter().GetResult();
        if (tokenizer.VocabularySize > config.VocabSize)
        {
            throw new JobInputException($"{TokenizerPath(job.Model)}: the tokenizer has {tokenizer.VocabularySize} tokens, "
                + $"but the model's vocab_size is {config.VocabSize}; take both from the same snapshot");
        }

        if (device.type == DeviceType.CUDA)
        {
            // Before the first product: cuBLAS takes its workspace then.
            use_deterministic_algorithms(job.Training.Deterministic);
        }

        var placement = new ModelPlacement(TensorTypes.Compute(job.Model.Dtype, device), device);
        AttentionRequest request = AttentionRequest.Here(
            placement.Device, placement.Dtype, config.HeadDim, config.LayerSlides.Contains(true), job.Training.Deterministic);
        log($"device: {ComputeDevice.Describe(device, job.Model.Device, request.Kernels)}");
        AttentionChoice attention = AttentionSelector.Choose(job.Model.Attention, request);
        log(attention.Explanation);

        var model = new QwenModel(config, placement, attention.Backend, job.Model.Recompute);
        if (job.Model.Path is { } path)
        {
            using SnapshotWeights weights = SnapshotWeights.Open(path);
            Weights.Load(model, weights);
        }
        else
        {
            Weights.Initialize(model, job.Seed);
        }

        if (job.Lora is { } lora)
        {
            model.AttachLora(lora, (ulong)job.Seed);
        }

        long all = model.NamedTensors().Sum(Elements), trained = model.TrainedTensors().Sum(Elements);
        log(FormattableString.Invariant($"model: {config.ModelType}, {all / 1e6:F1} M parameters, {trained / 1e6:F3} M trained, {placement.Dtype}"));
        log($"tokenizer: {tokenizer.Path}");
        ChatTemplate template = ChatTemplate.Of(job.Data, TokenizerPath(job.Model), config.ModelType);
        log(template.Explanation);
        return new JobModel(model, tokenizer, template, TokenizerPath(job.Model));
    }

    public static string ConfigPath(ModelConfig model) => model.Config ?? Path.Combine(model.Path!, "config.json");

    public static string TokenizerPath(ModelConfig model) => model.Tokenizer ?? model.Path!;

    public void Dispose() => Model.Dispose();

    private static long Elements(NamedTensor tensor) => tensor.Parameter.NumberOfElements / tensor.Parameter.shape[0] * tensor.Rows;
}
