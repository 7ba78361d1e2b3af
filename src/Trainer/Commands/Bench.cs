using System.CommandLine;
using System.Globalization;
using Trainer.Worker.Attention;
using static TorchSharp.torch;

namespace Trainer.Cli.Commands;

/// <summary><c>trainer bench attention</c>: time and memory of our attention beside plain matrix products.</summary>
internal static class Bench
{
    public static Command Create() => new("bench", "Measures this installation") { Attention() };

    private static Command Attention()
    {
        var tokens = new Option<int[]>("--tokens") { Description = "Lengths of the document", DefaultValueFactory = _ => [2048, 4096, 8192], AllowMultipleArgumentsPerToken = true };
        var heads = new Option<int>("--heads") { Description = "Query heads", DefaultValueFactory = _ => 4 };
        var kvHeads = new Option<int>("--kv-heads") { Description = "Key/value heads", DefaultValueFactory = _ => 2 };
        var headDim = new Option<int>("--head-dim") { Description = "Size of a head", DefaultValueFactory = _ => 64 };
        var repeats = new Option<int>("--repeats") { Description = "Runs after a warm-up; medians are shown", DefaultValueFactory = _ => 3 };
        var command = new Command("attention", "Forward and backward of causal attention in float32: time, and peak memory beyond the inputs") { tokens, heads, kvHeads, headDim, repeats };
        command.SetAction(parsed =>
        {
            set_num_threads(Environment.ProcessorCount);
            Console.WriteLine($"{parsed.GetValue(heads)}/{parsed.GetValue(kvHeads)} heads of {parsed.GetValue(headDim)}, float32, {Environment.ProcessorCount} threads");
            Row("T", "attention", "forward ms", "backward ms", "peak MiB", "MiB per 1,024 tokens");
            foreach (int length in parsed.GetValue(tokens)!)
            {
                foreach (AttentionBackend backend in new[] { AttentionBackend.Flash, AttentionBackend.Math })
                {
                    AttentionMeasurement m = AttentionBenchmark.Run(
                        backend, length, parsed.GetValue(heads), parsed.GetValue(kvHeads), parsed.GetValue(headDim), ScalarType.Float32, parsed.GetValue(repeats));
                    double mebibytes = m.PeakBytes / 1048576.0;
                    Row(length.ToString("N0", CultureInfo.InvariantCulture), m.Backend, Number(m.ForwardMilliseconds), Number(m.BackwardMilliseconds), Number(mebibytes), Number(mebibytes * 1024 / length));
                }
            }

            return 0;
        });
        return command;
    }

    /// <summary>A line at once: the long lengths take their time.</summary>
    private static void Row(string tokens, string attention, string forward, string backward, string peak, string perToken) =>
        Console.WriteLine($"{tokens,8}  {attention,-9}  {forward,12}  {backward,12}  {peak,10}  {perToken,20}");

    private static string Number(double value) => value.ToString("N1", CultureInfo.InvariantCulture);
}
