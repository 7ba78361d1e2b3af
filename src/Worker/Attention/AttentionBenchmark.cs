using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Trainer.Worker.Attention;

/// <summary>Times one contender forward and backward over one causal document, and measures the memory beyond its inputs.</summary>
public static partial class AttentionBenchmark
{
    /// <summary>Launches between two looks at the clock: a GPU is not waited for in between.</summary>
    private const int GpuBatch = 10;

    /// <param name="tokens">T; q is [T, heads, headDim], k and v [T, kvHeads, headDim], random normal.</param>
    /// <param name="repeats">The medians of so many runs after one warm-up are reported.</param>
    public static AttentionMeasurement Run(
        AttentionContender contender, int tokens, int heads, int kvHeads, int headDim, ScalarType dtype, Device device, int repeats)
    {
        using DisposeScope scope = NewDisposeScope();
        bool onGpu = device.type == DeviceType.CUDA;
        contender.Prepare?.Invoke();
        manual_seed(1);
        Tensor q = randn([tokens, heads, headDim], device: device).to(dtype).requires_grad_(true);
        Tensor k = randn([tokens, kvHeads, headDim], device: device).to(dtype).requires_grad_(true);
        Tensor v = randn([tokens, kvHeads, headDim], device: device).to(dtype).requires_grad_(true);
        Tensor upstream = randn([tokens, heads, headDim], device: device).to(dtype);
        Tensor offsets = tensor(new[] { 0, tokens }, [2]);
        double scale = 1 / Math.Sqrt(headDim);

        var forward = new List<double>();
        var backward = new List<double>();
        long peak = 0;
        for (int run = 0; run <= repeats; run++)
        {
            using DisposeScope inner = NewDisposeScope();
            long before = ResetPeak(device);
            Tensor output = Forward();
            _ = Backward(output);
            peak = Math.Max(peak, Peak(device) - before);
            double forwardMs = Milliseconds(onGpu, () => Forward());
            double backwardMs = Milliseconds(onGpu, () => Backward(output));
            if (run > 0)
            {
                forward.Add(forwardMs);
                backward.Add(backwardMs);
            }
        }

        return new AttentionMeasurement(contender.Name, tokens, Median(forward), Median(backward), peak);

        Tensor Forward() => contender.Backend.Forward(q, k, v, offsets, scale, -1);

        IList<Tensor> Backward(Tensor output) => autograd.grad([output], [q, k, v], [upstream], retain_graph: true);
    }

    private static double Milliseconds(bool onGpu, Action run)
    {
        int times = onGpu ? GpuBatch : 1;
        Wait(onGpu);
        long start = Stopwatch.GetTimestamp();
        for (int i = 0; i < times; i++)
        {
            using DisposeScope scope = NewDisposeScope();
            run();
        }

        Wait(onGpu);
        return Stopwatch.GetElapsedTime(start).TotalMilliseconds / times;
    }

    private static void Wait(bool onGpu)
    {
        if (onGpu)
        {
            Cuda.Synchronize();
        }
    }

    private static long ResetPeak(Device device)
    {
        if (device.type != DeviceType.CUDA)
        {
            return ResidentMemory.Reset();
        }

        Cuda.Synchronize();
        Cuda.ResetPeak(device);
        return Cuda.Memory(device).Allocated;
    }

    private static long Peak(Device device) => device.type == DeviceType.CUDA ? Cuda.Memory(device).Peak : ResidentMemory.Peak();

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

/// <param name="Name">A backend, and which of its kernels.</param>
/// <param name="Prepare">Called once before the runs.</param>
public sealed record AttentionContender(string Name, AttentionBackend Backend, Action? Prepare = null)
{
    public static IReadOnlyList<AttentionContender> OnCpu { get; } = [new("flash", AttentionBackend.Flash), new("math", AttentionBackend.Math)];

    /// <summary>Ours and each kind of libtorch's kernels, in one process on the same inputs.</summary>
    public static IReadOnlyList<AttentionContender> OnGpu { get; } =
    [
        new("flash, any order", AttentionBackend.FlashInAnyOrder),
        new("flash", AttentionBackend.Flash),
        new("sdpa flash", AttentionBackend.Sdpa, () => Cuda.AllowAttention(flash: true)),
        new("sdpa cuDNN", AttentionBackend.Sdpa, () => Cuda.AllowAttention(cudnn: true)),
        new("math", AttentionBackend.Math),
    ];
}

/// <param name="PeakBytes">Most resident (on a GPU: allocated) memory during forward and backward beyond what was there before.</param>
public sealed record AttentionMeasurement(string Attention, int Tokens, double ForwardMilliseconds, double BackwardMilliseconds, long PeakBytes);
