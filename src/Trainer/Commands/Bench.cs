using System.CommandLine;
using System.Globalization;
using Trainer.Contracts;
using Trainer.Worker.Attention;
using Trainer.Worker.Model;
using Trainer.Worker.Training;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer bench</c>: time and memory of our attention beside other ways, and of whole training steps.</summary>
internal static class Bench
{
    /// <summary>As training.batch_tokens and lora.rank; of heads and their sizes more than any model has.</summary>
    private const int MostTokens = 1 << 24, MostRank = 4096, MostOfShape = 4096;

    public static Command Create() => new("bench", "Measures this installation") { Attention(), Training() };

    private static Command Attention()
    {
        var tokens = new Option<int[]>("--tokens") { Description = "Lengths of the document", DefaultValueFactory = _ => [2048, 4096, 8192], AllowMultipleArgumentsPerToken = true };
        var heads = new Option<int>("--heads") { Description = "Query heads", DefaultValueFactory = _ => 4 };
        var kvHeads = new Option<int>("--kv-heads") { Description = "Key/value heads", DefaultValueFactory = _ => 2 };
        var headDim = new Option<int>("--head-dim") { Description = "Size of a head", DefaultValueFactory = _ => 64 };
        var repeats = new Option<int>("--repeats") { Description = "Runs after a warm-up; medians are shown", DefaultValueFactory = _ => 3 };
        Option<DeviceKind> device = DeviceOption();
        var command = new Command("attention", "Forward and backward of causal attention (float32 on the CPU, bfloat16 on a GPU): time, and peak memory beyond the inputs") { tokens, heads, kvHeads, headDim, repeats, device };
        tokens.Validators.Add(result => Within(tokens.Name, result.GetValueOrDefault<int[]>(), MostTokens, result.AddError));
        foreach (Option<int> option in new[] { heads, kvHeads, headDim, repeats })
        {
            option.Validators.Add(result => Within(option.Name, [result.GetValueOrDefault<int>()], MostOfShape, result.AddError));
        }

        command.Validators.Add(result =>
        {
            if (result.GetValue(kvHeads) is > 0 and var shared && result.GetValue(heads) % shared != 0)
            {
                result.AddError($"--heads: must be a multiple of --kv-heads, {shared}");
            }
        });
        command.SetAction(parsed =>
        {
            set_num_threads(Environment.ProcessorCount);
            Device on = ComputeDevice.Choose(parsed.GetValue(device));
            ScalarType dtype = TensorTypes.Compute(DType.Auto, on);
            Console.WriteLine($"{parsed.GetValue(heads)}/{parsed.GetValue(kvHeads)} heads of {parsed.GetValue(headDim)}, {dtype}, {on}, {Environment.ProcessorCount} threads");
            Row("T", "attention", "forward ms", "backward ms", "peak MiB", "MiB per 1,024 tokens");
            foreach (int length in parsed.GetValue(tokens)!)
            {
                foreach (AttentionContender contender in on.type == DeviceType.CUDA ? AttentionContender.OnGpu : AttentionContender.OnCpu)
                {
                    string row = length.ToString("N0", CultureInfo.InvariantCulture);
                    try
                    {
                        AttentionMeasurement m = AttentionBenchmark.Run(
                            contender, length, parsed.GetValue(heads), parsed.GetValue(kvHeads), parsed.GetValue(headDim), dtype, on, parsed.GetValue(repeats));
                        double mebibytes = m.PeakBytes / 1048576.0;
                        string format = on.type == DeviceType.CUDA ? "N3" : "N1";
                        Row(row, m.Attention, Number(m.ForwardMilliseconds, format), Number(m.BackwardMilliseconds, format), Number(mebibytes), Number(mebibytes * 1024 / length));
                    }
                    catch (TorchException e)
                    {
                        // Some of libtorch's kernels do not take every shape, and plain products not every length.
                        Console.WriteLine($"{row,8}  {contender.Name,-16}  can't run: {e.Message.Split('\n')[0]}");
                    }
                }
            }

            return 0;
        });
        return command;
    }

    private static Command Training()
    {
        var model = new Option<string>("--model") { Description = "A Hugging Face config.json; the weights are random", DefaultValueFactory = _ => "configs/demo/model.json" };
        var documents = new Option<int>("--documents") { Description = "Documents of the one micro-batch of a step", DefaultValueFactory = _ => 8 };
        var tokens = new Option<int>("--tokens") { Description = "Tokens of each document", DefaultValueFactory = _ => 2048 };
        var steps = new Option<int>("--steps") { Description = "Measured steps after three; the median is shown", DefaultValueFactory = _ => 10 };
        Option<AttentionKind[]> attentions = Shared.Choices<AttentionKind>("--attention", "auto, or several, such as flash sdpa, measured in turn");
        var anyOrder = new Option<bool>("--any-order") { Description = "As training.deterministic: false" };
        var recompute = new Option<bool>("--recompute") { Description = "As model.recompute: true" };
        var lora = new Option<int?>("--lora") { Description = "Trains adapters of this rank on all linear layers. Default: all weights are trained", HelpName = "RANK" };
        Option<DeviceKind> device = DeviceOption();
        var command = new Command("training", "Whole optimizer steps of a random model on random tokens: time, tokens per second and peak GPU memory")
        {
            model, documents, tokens, steps, attentions, anyOrder, recompute, lora, device,
        };
        foreach (Option<int> option in new[] { documents, tokens, steps })
        {
            option.Validators.Add(result => Within(option.Name, [result.GetValueOrDefault<int>()], MostTokens, result.AddError));
        }

        lora.Validators.Add(result => Within(lora.Name, result.GetValueOrDefault<int?>() is { } rank ? [rank] : null, MostRank, result.AddError));
        command.Validators.Add(result =>
        {
            if (result.GetValue(documents) * (long)result.GetValue(tokens) > MostTokens)
            {
                result.AddError($"--documents times --tokens: must be at most {MostTokens}");
            }
        });
        command.SetAction(parsed =>
        {
            set_num_threads(Environment.ProcessorCount);
            Device on = ComputeDevice.Choose(parsed.GetValue(device));
            LoraConfig? adapters = parsed.GetValue(lora) is { } rank ? new LoraConfig { Rank = rank } : null;
            QwenConfig config = QwenConfig.Load(Path.GetFullPath(parsed.GetValue(model)!));
            AttentionKind[] kinds = parsed.GetValue(attentions) is { Length: > 0 } given ? given : [AttentionKind.Auto];
            foreach (AttentionKind attention in kinds)
            {
                TrainingMeasurement m = TrainingBenchmark.Run(
                    config, on, attention, !parsed.GetValue(anyOrder), parsed.GetValue(recompute), adapters,
                    parsed.GetValue(documents), parsed.GetValue(tokens), parsed.GetValue(steps), Console.Error.WriteLine);
                string peak = m.PeakBytes is { } bytes ? Number(bytes / (double)(1L << 30), "N2") + " GiB" : "";
                Console.WriteLine($"{m.Attention,-18} {Number(m.MillisecondsPerStep),10} ms/step {Number(m.TokensPerSecond, "N0"),10} tokens/s {peak,12}");
            }

            return 0;
        });
        return command;
    }

    private static Option<DeviceKind> DeviceOption() =>
        Shared.Choice<DeviceKind>("--device", "cpu, cuda, or auto: a GPU where there is one");

    private static void Within(string option, int[]? given, int most, Action<string> refuse)
    {
        if (given?.Any(value => value < 1 || value > most) == true)
        {
            refuse($"{option}: must be from 1 to {most}");
        }
    }

    /// <summary>A line at once: the long lengths take their time.</summary>
    private static void Row(string tokens, string attention, string forward, string backward, string peak, string perToken) =>
        Console.WriteLine($"{tokens,8}  {attention,-16}  {forward,12}  {backward,12}  {peak,10}  {perToken,20}");

    private static string Number(double value, string format = "N1") => value.ToString(format, CultureInfo.InvariantCulture);
}
