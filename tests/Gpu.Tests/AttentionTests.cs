using Trainer.Contracts;
using Trainer.Worker;
using Trainer.Worker.Attention;
using Trainer.Worker.Kernels;
using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Gpu.Tests;

/// <summary>Our attention under libtorch: what it keeps, where it runs, which bits it gives.</summary>
public sealed class AttentionTests
{
    private const int Tokens = 1000, Heads = 4, KvHeads = 2, HeadDim = 64;

    private static readonly int[] s_documents = [0, 300, 301, Tokens];

    [Fact]
    public void Forward_keeps_out_and_one_float_a_row_and_head_and_nothing_else()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] inputs = Inputs();
        long before = Cuda.Memory(Gpu.Device).Allocated;
        Tensor output = Attend(inputs);
        long kept = Cuda.Memory(Gpu.Device).Allocated - before;
        long result = Tokens * Heads * HeadDim * sizeof(ushort), lse = Tokens * Heads * sizeof(float);
        // The allocator rounds each up to 512 bytes.
        Assert.InRange(kept, result + lse, result + lse + 1024);
        output.sum().backward();
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Backward_takes_its_scratch_from_libtorch_and_gives_it_back(bool deterministic)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] inputs = Inputs();
        Tensor output = Attend(inputs, deterministic), upstream = randn_like(output);
        _ = autograd.grad([output], inputs, [upstream], retain_graph: true);
        Cuda.Synchronize();
        Cuda.ResetPeak(Gpu.Device);
        long before = Cuda.Memory(Gpu.Device).Allocated;
        using (DisposeScope inner = NewDisposeScope())
        {
            _ = autograd.grad([output], inputs, [upstream], retain_graph: true);
        }

        CudaMemory memory = Cuda.Memory(Gpu.Device);
        long gradients = inputs.Sum(x => x.ByteCount());
        long scratch = Tokens * Heads * sizeof(float) * (deterministic ? 1 : HeadDim);
        Assert.Equal(before, memory.Allocated);
        Assert.InRange(memory.Peak - before, gradients + scratch, gradients + scratch + 4096);
    }

    [Fact]
    public void The_same_call_gives_the_same_bits()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] inputs = Inputs();
        List<byte[]> first = Run(inputs);
        for (int repeat = 0; repeat < 20; repeat++)
        {
            using DisposeScope inner = NewDisposeScope();
            Assert.True(first.Zip(Run(inputs)).All(pair => pair.First.AsSpan().SequenceEqual(pair.Second)), $"other bits in repeat {repeat}");
        }
    }

    [Fact]
    public void It_runs_on_the_current_stream_and_is_captured_in_a_graph_forward_and_backward()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] inputs = Inputs();
        Tensor upstream = randn([Tokens, Heads, HeadDim], device: Gpu.Device).to(ScalarType.BFloat16);
        Tensor eager = Attend(inputs);
        IList<Tensor> eagerGradients = autograd.grad([eager], inputs, [upstream]);

        Tensor? output = null;
        IList<Tensor>? gradients = null;
        nint outside = Cuda.CurrentStream(Gpu.Device), inside = 0;
        using CudaGraph graph = CudaGraph.Capture(() =>
        {
            inside = Cuda.CurrentStream(Gpu.Device);
            // Leaves belong to the stream on which they were made.
            Tensor[] leaves = [.. inputs.Select(x => x.detach().requires_grad_(true))];
            output = Attend(leaves);
            gradients = autograd.grad([output], leaves, [upstream]);
        });
        Assert.NotEqual(outside, inside);
        Assert.Equal(outside, Cuda.CurrentStream(Gpu.Device));

        using (no_grad())
        {
            output!.detach().zero_();
            foreach (Tensor gradient in gradients!)
            {
                gradient.zero_();
            }
        }

        graph.Replay();
        Cuda.Synchronize();
        Assert.Equal(Gpu.Bits(eager), Gpu.Bits(output));
        foreach ((Tensor expected, Tensor actual) in eagerGradients.Zip(gradients))
        {
            Assert.Equal(Gpu.Bits(expected), Gpu.Bits(actual));
        }

        // Other numbers in the same places.
        using (no_grad())
        {
            inputs[0].copy_(randn_like(inputs[0]));
        }

        graph.Replay();
        Cuda.Synchronize();
        Assert.Equal(Gpu.Bits(Attend(inputs)), Gpu.Bits(output));
    }

    [Fact]
    public void Flash_sdpa_and_math_agree_on_packed_documents()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] inputs = Inputs();
        Tensor offsets = tensor(s_documents, [s_documents.Length]);
        Tensor flash = AttentionBackend.Flash.Forward(inputs[0], inputs[1], inputs[2], offsets, 0.125, -1);
        foreach (AttentionBackend backend in (AttentionBackend[])[AttentionBackend.FlashInAnyOrder, AttentionBackend.Sdpa, AttentionBackend.Math])
        {
            Tensor other = backend.Forward(inputs[0], inputs[1], inputs[2], offsets, 0.125, -1);
            using var _ = no_grad();
            double error = ((flash - other).to(ScalarType.Float32).norm() / flash.to(ScalarType.Float32).norm()).ToDouble();
            Assert.True(error < 1e-2, $"{backend.Name}: {error}");
        }
    }

    [Fact]
    public void A_bfloat16_job_on_this_machine_gets_our_kernels()
    {
        AttentionRequest request = AttentionRequest.Here(Gpu.Device, ScalarType.BFloat16, 128, slidingWindow: false, deterministic: true);
        Assert.Same(AttentionBackend.Flash, AttentionSelector.Choose(AttentionKind.Auto, request).Backend);
        Assert.Same(AttentionBackend.FlashInAnyOrder, AttentionSelector.Choose(AttentionKind.Auto, request with { Deterministic = false }).Backend);
    }

    [Fact]
    public void Sdpa_says_which_kernels_it_takes_and_a_float32_job_that_names_flash_fails()
    {
        AttentionRequest request = AttentionRequest.Here(Gpu.Device, ScalarType.BFloat16, 128, slidingWindow: false, deterministic: true);
        Assert.Matches(@"^attention: sdpa \((flash|mem-efficient|cuDNN|math)\)", AttentionSelector.Choose(AttentionKind.Sdpa, request).Explanation);
        Assert.Contains("the GPU kernels compute bfloat16",
            Assert.Throws<JobInputException>(() => AttentionSelector.Choose(AttentionKind.Flash, request with { Dtype = ScalarType.Float32 })).Message, StringComparison.Ordinal);
    }

    private static Tensor[] Inputs()
    {
        manual_seed(1);
        return [.. new[] { Heads, KvHeads, KvHeads }.Select(heads => randn([Tokens, heads, HeadDim], device: Gpu.Device).to(ScalarType.BFloat16).requires_grad_(true))];
    }

    private static Tensor Attend(Tensor[] inputs, bool deterministic = true) =>
        Ops.FlashAttention(inputs[0], inputs[1], inputs[2], tensor(s_documents, [s_documents.Length]), 0.125, deterministic: deterministic);

    private static List<byte[]> Run(Tensor[] inputs)
    {
        Tensor output = Attend(inputs);
        IList<Tensor> gradients = autograd.grad([output], inputs, [ones_like(output)]);
        return [.. gradients.Append(output).Select(Gpu.Bits)];
    }
}
