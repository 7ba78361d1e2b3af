using System.Runtime.InteropServices;
using Nccl;

namespace Trainer.Worker.Tests.Distributed;

/// <summary>Nccl.NET over a stand-in of native/tests/nccl. Gpu.Tests has the real one.</summary>
public sealed class NcclTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    public NcclTests()
    {
        if (StandIn.IsPossible)
        {
            StandIn.Reset();
        }
    }

    public void Dispose()
    {
        if (StandIn.IsPossible)
        {
            StandIn.Reset();
        }
    }

    [StandInFact]
    public void The_library_that_is_loaded_is_the_one_in_use() => Assert.EndsWith("standin/libnccl.so.2)", NcclLibrary.Describe(), StringComparison.Ordinal);

    [StandInFact]
    public async Task Sums_of_several_types_leave_in_one_group_and_are_the_same_everywhere()
    {
        (float[], double[], long[])[] sums = await RunAsync(3, ranks =>
        {
            float[] floats = Pinned(1.5f + ranks.Rank, -2);
            double[] doubles = Pinned(0.25 * ranks.Rank);
            long[] longs = Pinned(1L << 40, ranks.Rank, 7);
            ranks.AllReduce(
                [Buffer(floats, DataType.Float32), Buffer(doubles, DataType.Float64), Buffer(longs, DataType.Int64)], ReduceOp.Sum, stream: 0, s_patience);
            ranks.Wait(stream: 0, s_patience);
            return (floats, doubles, longs);
        });
        Assert.All(sums, sum =>
        {
            Assert.Equal([7.5f, -6], sum.Item1);
            Assert.Equal([0.75], sum.Item2);
            Assert.Equal([3L << 40, 3, 21], sum.Item3);
        });
        Assert.Equal((3, 0), (StandIn.Count("destroyed"), StandIn.Count("aborted")));
    }

    [StandInFact]
    public async Task A_broadcast_brings_what_the_root_has()
    {
        long[] got = await RunAsync(3, ranks =>
        {
            long[] value = Pinned(10L + ranks.Rank);
            ranks.Broadcast([Buffer(value, DataType.Int64)], root: 2, stream: 0, s_patience);
            return value[0];
        });
        Assert.Equal([12, 12, 12], got);
    }

    [StandInFact]
    public void A_rank_that_does_not_come_ends_the_wait_for_it()
    {
        var e = Assert.Throws<NcclException>(() => Communicator.Create(UniqueId.Create(), 0, 2, TimeSpan.FromMilliseconds(50)));
        Assert.Equal(("ncclCommInitRank: not done within 0.05 s", Result.Timeout), (e.Message, e.Result));
        Assert.Equal(1, StandIn.Count("aborted"));
    }

    [StandInFact]
    public void A_rank_that_is_lost_while_others_wait_aborts_their_communicator()
    {
        using Communicator alone = Alone();
        StandIn.Stream(600);
        StandIn.Set("async", (int)Result.RemoteError);
        var e = Assert.Throws<NcclException>(() => alone.Wait(stream: 0, s_patience));
        Assert.Equal("a collective: remote process exited or there was a network error (6): Connection closed by remote peer", e.Message);
        Assert.Equal(Result.RemoteError, e.Result);
        Assert.Equal(1, StandIn.Count("aborted"));
        Assert.Throws<ObjectDisposedException>(() => alone.Broadcast([], root: 0, stream: 0, s_patience));
        alone.Dispose();
        Assert.Equal((0, 1), (StandIn.Count("destroyed"), StandIn.Count("aborted")));
    }

    [StandInFact]
    public void A_wait_has_an_end()
    {
        using Communicator alone = Alone();
        StandIn.Stream(600);
        Assert.Equal(Result.Timeout, Assert.Throws<NcclException>(() => alone.Wait(stream: 0, TimeSpan.FromMilliseconds(50))).Result);
        Assert.Equal(1, StandIn.Count("aborted"));
    }

    [StandInFact]
    public void A_fault_of_the_GPU_is_told_by_its_number()
    {
        using Communicator alone = Alone();
        StandIn.Stream(700);
        Assert.Equal("cuStreamQuery: CUDA error 700", Assert.Throws<NcclException>(() => alone.Wait(stream: 0, s_patience)).Message);
    }

    [StandInFact]
    public void A_refused_collective_leaves_no_group_open()
    {
        using Communicator alone = Alone();
        StandIn.Set("collective", (int)Result.SystemError);
        var e = Assert.Throws<NcclException>(() => alone.AllReduce([Buffer(Pinned(1f), DataType.Float32)], ReduceOp.Sum, stream: 0, s_patience));
        Assert.Equal(("ncclAllReduce", Result.SystemError), (e.Operation, e.Result));
        Assert.Equal(0, StandIn.Depth());
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(2, 2)]
    [InlineData(-1, 2)]
    public void Ranks_that_cannot_be_are_refused(int rank, int worldSize) =>
        Assert.Throws<ArgumentOutOfRangeException>(() => Communicator.Create(default, rank, worldSize, s_patience));

    [Fact]
    public void An_id_survives_its_way_as_bytes()
    {
        byte[] bytes = [.. Enumerable.Range(0, UniqueId.Size).Select(i => (byte)i)];
        Assert.Equal(bytes, UniqueId.From(bytes).ToArray());
        Assert.Throws<ArgumentOutOfRangeException>(() => UniqueId.From(new byte[UniqueId.Size - 1]));
    }

    private static T[] Pinned<T>(params ReadOnlySpan<T> values)
    {
        T[] array = GC.AllocateUninitializedArray<T>(values.Length, pinned: true);
        values.CopyTo(array);
        return array;
    }

    private static DeviceBuffer Buffer<T>(T[] pinned, DataType type) =>
        new(Marshal.UnsafeAddrOfPinnedArrayElement(pinned, 0), pinned.Length, type);

    private static Communicator Alone() => Communicator.Create(UniqueId.Create(), 0, 1, s_patience);

    /// <summary>Ranks on threads of their own.</summary>
    private static async Task<T[]> RunAsync<T>(int worldSize, Func<Communicator, T> rank)
    {
        byte[] id = UniqueId.Create().ToArray();
        return await Task.WhenAll(Enumerable.Range(0, worldSize).Select(number => Task.Factory.StartNew(() =>
        {
            using Communicator ranks = Communicator.Create(UniqueId.From(id), number, worldSize, s_patience);
            return rank(ranks);
        }, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default)));
    }
}

/// <summary>Skipped where a real driver is, which the stand-in would hide from libtorch.</summary>
internal sealed class StandInFactAttribute : FactAttribute
{
    public StandInFactAttribute() => Skip = StandIn.IsPossible ? null : "this machine has a CUDA driver: see Gpu.Tests";
}

/// <summary>native/tests/nccl: what dlopen takes for libnccl.so.2 and libcuda.so.1 once they are loaded.</summary>
internal static unsafe class StandIn
{
    private static readonly nint s_nccl, s_cuda;

    static StandIn()
    {
        string folder = Repository.File("native", "build", "cpu", "tests", "standin");
        if (NativeLibrary.TryLoad("libcuda.so.1", out _))
        {
            return;
        }

        s_cuda = NativeLibrary.Load(Path.Combine(folder, "libcuda.so.1"));
        s_nccl = NativeLibrary.Load(Path.Combine(folder, "libnccl.so.2"));
    }

    public static bool IsPossible => s_nccl != 0;

    public static void Reset()
    {
        Stream(0);
        foreach (string name in (string[])["async", "collective", "aborted", "destroyed"])
        {
            Set(name, 0);
        }
    }

    public static void Set(string name, int value)
    {
        fixed (byte* utf8 = System.Text.Encoding.UTF8.GetBytes(name + "\0"))
        {
            ((delegate* unmanaged[Cdecl]<byte*, int, void>)NativeLibrary.GetExport(s_nccl, "standin_set"))(utf8, value);
        }
    }

    public static int Count(string name)
    {
        fixed (byte* utf8 = System.Text.Encoding.UTF8.GetBytes(name + "\0"))
        {
            return ((delegate* unmanaged[Cdecl]<byte*, int>)NativeLibrary.GetExport(s_nccl, "standin_count"))(utf8);
        }
    }

    public static int Depth() => ((delegate* unmanaged[Cdecl]<int>)NativeLibrary.GetExport(s_nccl, "standin_depth"))();

    public static void Stream(int answer) => ((delegate* unmanaged[Cdecl]<int, void>)NativeLibrary.GetExport(s_cuda, "standin_stream"))(answer);
}
