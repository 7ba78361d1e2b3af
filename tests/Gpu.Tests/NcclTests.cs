using System.Diagnostics;
using System.Globalization;
using Trainer.Worker.Distributed;
using TorchSharp;
using TorchSharp.Extras;
using static TorchSharp.torch;

namespace Gpu.Tests;

/// <summary>
/// Ranks over the real NCCL, each a process. They share the GPU: NCCL_HOSTID tells them that they are on different machines, so that
/// they speak over sockets. What NVLink does is not seen by this.
/// </summary>
public sealed class NcclTests
{
    /// <summary>The role of a child process: <c>nccl-rank ROLE RANK PORT</c>.</summary>
    internal const string Verb = "nccl-rank";

    private const int WorldSize = 2;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    [Fact]
    public void A_rank_alone_keeps_its_values()
    {
        using DisposeScope scope = NewDisposeScope();
        using var alone = new NcclCommunicator(TcpStore.Serve("127.0.0.1", s_patience), Gpu.Device, 0, 1, s_patience);
        Tensor onGpu = tensor([1.5f, -2f], device: Gpu.Device), onCpu = tensor([3L]);
        alone.AllReduceSum([onGpu, onCpu]);
        alone.Broadcast(onCpu, root: 0);
        alone.Barrier();
        Assert.Equal([1.5f, -2f], onGpu.cpu().data<float>().ToArray());
        Assert.Equal([3L], onCpu.data<long>().ToArray());
    }

    [Fact]
    public void Sums_have_the_same_bits_on_every_rank_and_in_every_run()
    {
        string[] first = Run("sum"), second = Run("sum");
        Assert.Equal(first[0], first[1]);
        Assert.Equal(first, second);
        Assert.StartsWith("right ", first[0], StringComparison.Ordinal);
    }

    [Fact]
    public void When_a_rank_dies_the_other_fails_instead_of_waiting()
    {
        string[] said = Run("die");
        Assert.StartsWith("rank 0 of 2: ", said[0], StringComparison.Ordinal);
    }

    [Fact]
    public void What_nccl_would_misread_is_refused()
    {
        using DisposeScope scope = NewDisposeScope();
        using var alone = new NcclCommunicator(TcpStore.Serve("127.0.0.1", s_patience), Gpu.Device, 0, 1, s_patience);
        Assert.Throws<ArgumentException>(() => alone.AllReduceSum([zeros([2, 3], ScalarType.Float32, Gpu.Device).t()]));
        Assert.Throws<ArgumentException>(() => alone.AllReduceSum([zeros([2], ScalarType.BFloat16, Gpu.Device)]));
    }

    /// <summary>What a child process does; its last line on standard output is the answer.</summary>
    internal static int Rank(string role, int rank, int port)
    {
        using DisposeScope scope = NewDisposeScope();
        TcpStore store = rank == 0 ? TcpStore.Serve("127.0.0.1", s_patience) : TcpStore.Connect("127.0.0.1", port, s_patience);
        if (rank == 0)
        {
            Console.WriteLine(store.Port);
        }

        store.Meet("GPU", rank, WorldSize, s_patience);
        using var ranks = new NcclCommunicator(store, Gpu.Device, rank, WorldSize, s_patience);
        Console.WriteLine(role == "die" ? Die(ranks) : Sum(ranks));
        return 0;
    }

    /// <summary>Odd sizes in one group, three times, with work queued before.</summary>
    private static string Sum(NcclCommunicator ranks)
    {
        bool right = true;
        ulong bits = 0;
        for (int round = 0; round < 3; round++)
        {
            Tensor[] shares = [.. Enumerable.Range(0, WorldSize).Select(rank => Values(rank, round, 3_000_001))];
            Tensor large = shares[ranks.Rank].clone(), small = Values(ranks.Rank, round, 17), doubles = tensor([0.5 + ranks.Rank]);
            // Still under way when the collective is queued.
            large = large.mul(2);
            ranks.AllReduceSum([large, small, doubles]);
            right &= (large - shares[0].add(shares[1]).mul(2)).abs().max().ToSingle() == 0;
            right &= doubles.data<double>().ToArray() is [2.0];
            foreach (byte part in (byte[])[.. Gpu.Bits(large), .. Gpu.Bits(small)])
            {
                bits = (bits ^ part) * 0x100000001B3;
            }
        }

        Tensor root = tensor([(long)ranks.Rank]);
        ranks.Broadcast(root, root: 1);
        ranks.Barrier();
        return $"{(right && root.data<long>()[0] == 1 ? "right" : "wrong")} {bits:x16}";
    }

    private static string Die(NcclCommunicator ranks)
    {
        Tensor values = zeros([1 << 20], ScalarType.Float32, Gpu.Device);
        ranks.AllReduceSum([values]);
        if (ranks.Rank == 1)
        {
            Process.GetCurrentProcess().Kill();
        }

        try
        {
            ranks.AllReduceSum([values]);
            return "no failure";
        }
        catch (CollectiveException e)
        {
            return e.Message;
        }
    }

    private static Tensor Values(int rank, int round, int length)
    {
        manual_seed((100 * round) + rank);
        return randn([length], ScalarType.Float32).to(Gpu.Device);
    }

    private static string[] Run(string role)
    {
        using Process first = Start(role, 0, "0");
        string port = first.StandardOutput.ReadLine() ?? throw new InvalidOperationException("rank 0 said no port");
        using Process second = Start(role, 1, port);
        Task<string>[] texts = [first.StandardOutput.ReadToEndAsync(), second.StandardOutput.ReadToEndAsync()];
        Assert.True(Task.WaitAll([.. texts], s_patience), "a rank does not end");
        return [.. texts.Select(text => text.Result.Split('\n', StringSplitOptions.RemoveEmptyEntries).LastOrDefault() ?? "")];
    }

    private static Process Start(string role, int rank, string port)
    {
        var start = new ProcessStartInfo(Environment.ProcessPath!) { RedirectStandardOutput = true };
        if (Path.GetFileNameWithoutExtension(Environment.ProcessPath) == "dotnet")
        {
            start.ArgumentList.Add(typeof(NcclTests).Assembly.Location);
        }

        foreach (string argument in (string[])[Verb, role, rank.ToString(CultureInfo.InvariantCulture), port])
        {
            start.ArgumentList.Add(argument);
        }

        start.Environment["NCCL_HOSTID"] = $"machine-{rank}";
        start.Environment["NCCL_NVLS_ENABLE"] = "0";
        return Process.Start(start)!;
    }
}
