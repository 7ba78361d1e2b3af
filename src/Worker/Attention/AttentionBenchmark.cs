using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using TorchSharp;
using static TorchSharp.torch;

namespace Trainer.Worker.Attention;

/// <summary>Times one backend forward and backward over one causal document, and measures the memory beyond its inputs.</summary>
public static partial class AttentionBenchmark
{
    /// <param name="tokens">T; q is [T, heads, headDim], k and v [T, kvHeads, headDim], random normal.</param>
    /// <param name="repeats">The medians of so many runs after one warm-up are reported.</param>
    public static AttentionMeasurement Run(AttentionBackend backend, int tokens, int heads, int kvHeads, int headDim, ScalarType dtype, int repeats)
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(1);
        Tensor q = randn([tokens, heads, headDim]).to(dtype).requires_grad_(true);
        Tensor k = randn([tokens, kvHeads, headDim]).to(dtype).requires_grad_(true);
        Tensor v = randn([tokens, kvHeads, headDim]).to(dtype).requires_grad_(true);
        Tensor upstream = randn([tokens, heads, headDim]).to(dtype);
        Tensor offsets = tensor(new[] { 0, tokens }, [2]);
        double scale = 1 / Math.Sqrt(headDim);

        var forward = new List<double>();
        var backward = new List<double>();
        long peak = 0;
        for (int run = 0; run <= repeats; run++)
        {
            using DisposeScope inner = NewDisposeScope();
            long before = ResidentMemory.Reset();
            long start = Stopwatch.GetTimestamp();
            Tensor output = backend.Forward(q, k, v, offsets, scale, -1);
            double forwardMs = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
            start = Stopwatch.GetTimestamp();
            IList<Tensor> gradients = autograd.grad([output], [q, k, v], [upstream]);
            double backwardMs = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
            peak = Math.Max(peak, ResidentMemory.Peak() - before);
            if (run > 0)
            {
                forward.Add(forwardMs);
                backward.Add(backwardMs);
            }
        }

        return new AttentionMeasurement(backend.Kind.ToString().ToLowerInvariant(), tokens, Median(forward), Median(backward), peak);
    }

    private static double Median(List<double> values)
    {
        values.Sort();
        return values[values.Count / 2];
    }

    /// <summary>The kernel's own account of this process's memory.</summary>
    private static partial class ResidentMemory
    {
        /// <summary>
        /// Starts a new peak and returns what is resident now, in bytes. What the allocators kept of earlier runs is given
        /// back first: memory that is taken again would not count otherwise.
        /// </summary>
        public static long Reset()
        {
            GC.Collect();
            _ = ReturnFreedMemory(0);
            File.WriteAllText("/proc/self/clear_refs", "5");
            return Field("VmRSS:");
        }

        public static long Peak() => Field("VmHWM:");

        /// <summary>glibc: gives every whole free page back to the system.</summary>
        [LibraryImport("libc", EntryPoint = "malloc_trim")]
        private static partial int ReturnFreedMemory(nint keep);

        private static long Field(string name)
        {
            string line = File.ReadLines("/proc/self/status").First(line => line.StartsWith(name, StringComparison.Ordinal));
            return 1024 * long.Parse(line[name.Length..].Replace("kB", "", StringComparison.Ordinal).Trim(), CultureInfo.InvariantCulture);
        }
    }
}

/// <param name="PeakBytes">Most resident memory during forward and backward beyond what was there before.</param>
public sealed record AttentionMeasurement(string Backend, int Tokens, double ForwardMilliseconds, double BackwardMilliseconds, long PeakBytes);
