using System.Diagnostics;
using Trainer.Contracts;
using Trainer.Worker.Kernels;
using Trainer.Worker.Model;
using TorchSharp;
using TorchSharp.Extras;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Trainer.Worker.Verification;

/// <summary>Every operation of a training step on a small case on a GPU in bfloat16, against its CPU kernel in float32 on the same numbers.</summary>
public static class KernelCheck
{
    private const int Tokens = 257, Heads = 4, KvHeads = 2, HeadDim = 64, Width = 128, Vocabulary = 503, Rank = 8;
    private const double Tolerance = 2e-2;
    private const int Repeats = 20;

    private static readonly int[] s_documents = [0, 1, 130, Tokens];

    public static IEnumerable<KernelResult> Run(Device gpu)
    {
        Tensor Offsets() => tensor(s_documents, [s_documents.Length]);
        Tensor Labels() => (arange(Tokens, dtype: ScalarType.Int64) * 7).remainder(Vocabulary);
        long[] q = [Tokens, Heads, HeadDim], kv = [Tokens, KvHeads, HeadDim], rows = [Tokens, Width];

        yield return Compare("attention (ours, deterministic)", gpu, [q, kv, kv], x => Ops.FlashAttention(x[0], x[1], x[2], Offsets(), 0.125));
        yield return Compare("attention (ours, any order)", gpu, [q, kv, kv], x => Ops.FlashAttention(x[0], x[1], x[2], Offsets(), 0.125, deterministic: false));
        yield return Compare("attention (ours, window of 50)", gpu, [q, kv, kv], x => Ops.FlashAttention(x[0], x[1], x[2], Offsets(), 0.125, window: 50));
        yield return Compare("RMSNorm", gpu, [rows, [Width]], x => Ops.RmsNorm(x[0], x[1], 1e-6));
        yield return Compare("RMSNorm of heads", gpu, [q, [HeadDim]], x => Ops.RmsNorm(x[0], x[1], 1e-6));
        yield return Compare("RMSNorm + residual", gpu, [rows, rows, [Width]], x =>
        {
            (Tensor normed, Tensor sum) = Ops.AddRmsNorm(x[0], x[1], x[2], 1e-6);
            return normed + sum;
        });
        yield return Compare("rotary", gpu, [q], x =>
        {
            Tensor angles = arange(Tokens * HeadDim / 2, dtype: ScalarType.Float32, device: x[0].device).view(Tokens, HeadDim / 2) * 1e-3;
            return Ops.Rotary(x[0], angles.cos(), angles.sin());
        });
        yield return Compare("SwiGLU", gpu, [[Tokens, 2 * Width]], x => Ops.SwiGlu(x[0]));
        yield return Compare("linear", gpu, [rows, [Vocabulary, Width], [Vocabulary]], x => Ops.Linear(x[0], x[1], x[2]));
        yield return Compare("linear with LoRA", gpu, [rows, [Vocabulary, Width], [Rank, Width], [Vocabulary, Rank]], x => LowRank(x[0], x[1], x[2], x[3]));
        yield return Compare("linear + cross-entropy", gpu, [rows, [Vocabulary, Width]], x => Ops.LinearCrossEntropy(x[0], x[1], Labels(), 1.0 / Tokens, chunkRows: 100));
        yield return AdamW(gpu);
    }

    private static Tensor LowRank(Tensor x, Tensor weight, Tensor a, Tensor b)
    {
        using var factors = new LowRankFactors([new LowRank(0, a.to(ScalarType.Float32), b.to(ScalarType.Float32), 0.5)], x.dtype);
        return Ops.Linear(x, weight, null, factors);
    }

    /// <summary>The function's result and the gradients of its arguments, each by relative error of the whole tensor.</summary>
    private static KernelResult Compare(string name, Device gpu, long[][] shapes, Func<Tensor[], Tensor> function)
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(1);
        Tensor[] low = [.. shapes.Select(shape => randn(shape).to(ScalarType.BFloat16))];
        Tensor[] exact = [.. low.Select(x => x.to(ScalarType.Float32).requires_grad_(true))];
        Tensor[] there = [.. low.Select(x => x.to(gpu).requires_grad_(true))];
        Tensor expected = function(exact), actual = function(there);
        Tensor upstream = randn(expected.shape).to(ScalarType.BFloat16);
        IList<Tensor> expectedGradients = autograd.grad([expected], exact, [upstream.to(expected.dtype)]);
        Tensor upstreamThere = upstream.to(gpu).to(actual.dtype);
        IList<Tensor> gradients = autograd.grad([actual], there, [upstreamThere]);
        double worst = gradients.Append(actual).Zip(expectedGradients.Append(expected), Error).Max();
        return new KernelResult(name, worst, Tolerance, Milliseconds(() => autograd.grad([function(there)], there, [upstreamThere])));
    }

    /// <summary>Two steps on bfloat16 weights with float32 masters.</summary>
    private static KernelResult AdamW(Device gpu)
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(1);
        Tensor start = randn([Width, Width]).to(ScalarType.BFloat16), gradient = randn([Width, Width]).to(ScalarType.BFloat16);
        (Tensor expected, _) = Stepped(CPU);
        (Tensor actual, double milliseconds) = Stepped(gpu);
        return new KernelResult("AdamW", Error(actual, expected), 1e-5, milliseconds);

        (Tensor Master, double Milliseconds) Stepped(Device device)
        {
            var parameter = new Parameter(start.to(device).clone());
            using var optimizer = new Training.AdamW([new NamedTensor("x", parameter, 0, Width)], new OptimizerConfig { LearningRate = 1e-2 });
            for (int step = 1; step <= 2; step++)
            {
                // A copy: the optimizer zeroes it.
                parameter.grad = gradient.to(device).clone();
                optimizer.AccumulateGradients();
                optimizer.Step(step, 1e-2, 0.5);
            }

            Tensor master = optimizer.State(optimizer.Trained[0]).First().Tensor.clone();
            return (master, device.type == DeviceType.CUDA ? Milliseconds(() => optimizer.Step(3, 1e-2, 0.5)) : 0);
        }
    }

    private static double Error(Tensor actual, Tensor expected)
    {
        using DisposeScope scope = NewDisposeScope();
        using var _ = no_grad();
        Tensor reference = expected.to(ScalarType.Float64);
        double error = ((actual.cpu().to(ScalarType.Float64) - reference).norm().ToDouble()) / reference.norm().ToDouble();
        return double.IsNaN(error) ? double.PositiveInfinity : error;
    }

    private static double Milliseconds(Action run)
    {
        Cuda.Synchronize();
        long begun = Stopwatch.GetTimestamp();
        for (int i = 0; i < Repeats; i++)
        {
            using DisposeScope scope = NewDisposeScope();
            run();
        }

        Cuda.Synchronize();
        return Stopwatch.GetElapsedTime(begun).TotalMilliseconds / Repeats;
    }
}

/// <param name="Error">Relative, the worst of the result and its gradients.</param>
/// <param name="Milliseconds">Of forward and backward together.</param>
public sealed record KernelResult(string Kernel, double Error, double Tolerance, double Milliseconds)
{
    public bool Passed => Error <= Tolerance;
}
