using System.Diagnostics;

namespace Nccl;

/// <summary>
/// ncclComm_t: one rank, on the GPU that is current when it is made. All ranks call the same collectives in the same order. Not for
/// several threads at once. It is made non-blocking: what waits here looks for errors meanwhile, and a failure aborts the
/// communicator, which frees the stream of kernels that wait for a lost rank.
/// </summary>
public sealed unsafe class Communicator : IDisposable
{
    /// <summary>How often a wait asks NCCL for errors.</summary>
    private static readonly TimeSpan s_checks = TimeSpan.FromMilliseconds(10);

    /// <summary>For the last goodbye: the other ranks may be gone.</summary>
    private static readonly TimeSpan s_farewell = TimeSpan.FromSeconds(2);

    private const int CudaSuccess = 0;
    private const int CudaErrorNotReady = 600;

    private nint _handle;

    private Communicator(nint handle, int rank, int worldSize) => (_handle, Rank, WorldSize) = (handle, rank, worldSize);

    /// <summary>From 0.</summary>
    public int Rank { get; }

    public int WorldSize { get; }

    private nint Handle
    {
        get
        {
            ObjectDisposedException.ThrowIf(_handle == 0, this);
            return _handle;
        }
    }

    /// <summary>Waits until all ranks have called this with the same id.</summary>
    /// <exception cref="NcclException">They cannot reach each other, or did not all come within the timeout.</exception>
    /// <exception cref="DllNotFoundException">There is no NCCL.</exception>
    public static Communicator Create(UniqueId id, int rank, int worldSize, TimeSpan timeout)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(worldSize, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)rank, (uint)worldSize - 1, nameof(rank));
        NativeConfig config = NativeConfig.NonBlocking;
        nint handle = 0;
        Result result = NativeMethods.ncclCommInitRankConfig(&handle, worldSize, id, rank, &config);
        var communicator = new Communicator(handle, rank, worldSize);
        communicator.Complete("ncclCommInitRank", result, timeout);
        return communicator;
    }

    /// <summary>In place, all in one launch; queued on the stream behind what is there.</summary>
    /// <param name="stream">A cudaStream_t of this rank's GPU.</param>
    /// <param name="timeout">For the queueing, at which ranks may meet: the first of its kind connects them.</param>
    /// <exception cref="NcclException">The ranks lost each other.</exception>
    public void AllReduce(ReadOnlySpan<DeviceBuffer> buffers, ReduceOp op, nint stream, TimeSpan timeout)
    {
        fixed (DeviceBuffer* all = buffers)
        {
            Queue("ncclAllReduce", all, buffers.Length, (communicator, buffer) => NativeMethods.ncclAllReduce(
                buffer.Pointer, buffer.Pointer, (nuint)buffer.Count, buffer.Type, op, communicator, stream), timeout);
        }
    }

    /// <summary>In place: every rank gets what the root's buffers hold; otherwise as <see cref="AllReduce"/>.</summary>
    public void Broadcast(ReadOnlySpan<DeviceBuffer> buffers, int root, nint stream, TimeSpan timeout)
    {
        fixed (DeviceBuffer* all = buffers)
        {
            Queue("ncclBroadcast", all, buffers.Length, (communicator, buffer) => NativeMethods.ncclBroadcast(
                buffer.Pointer, buffer.Pointer, (nuint)buffer.Count, buffer.Type, root, communicator, stream), timeout);
        }
    }

    /// <summary>Waits for all that is queued on the stream.</summary>
    /// <exception cref="NcclException">A rank died, as far as NCCL sees that, or the timeout is over.</exception>
    public void Wait(nint stream, TimeSpan timeout)
    {
        long begun = Stopwatch.GetTimestamp();
        TimeSpan nextCheck = s_checks;
        int cuda;
        while ((cuda = NativeMethods.cuStreamQuery(stream)) == CudaErrorNotReady)
        {
            TimeSpan waited = Stopwatch.GetElapsedTime(begun);
            if (waited > nextCheck)
            {
                RequireHealth("a collective", waited, timeout);
                nextCheck = waited + s_checks;
            }

            Thread.Yield();
        }

        if (cuda != CudaSuccess)
        {
            Abort();
            throw new NcclException("cuStreamQuery", Result.UnhandledCudaError, FormattableString.Invariant($"CUDA error {cuda}"));
        }
    }

    /// <summary>Gives up what is under way, at once and without the other ranks.</summary>
    public void Abort()
    {
        if (Interlocked.Exchange(ref _handle, 0) is not 0 and nint handle)
        {
            _ = NativeMethods.ncclCommAbort(handle);
        }
    }

    public void Dispose()
    {
        if (_handle == 0)
        {
            return;
        }

        try
        {
            Complete("ncclCommFinalize", NativeMethods.ncclCommFinalize(_handle), s_farewell);
        }
        catch (NcclException)
        {
            return;
        }

        _ = NativeMethods.ncclCommDestroy(Interlocked.Exchange(ref _handle, 0));
    }

    private void Queue(string operation, DeviceBuffer* buffers, int count, Func<nint, DeviceBuffer, Result> collective, TimeSpan timeout)
    {
        nint communicator = Handle;
        Result result = NativeMethods.ncclGroupStart();
        for (int i = 0; i < count && result is Result.Success or Result.InProgress; i++)
        {
            result = collective(communicator, buffers[i]);
        }

        // Also after a failure: the group is the thread's.
        Result ended = NativeMethods.ncclGroupEnd();
        Complete(operation, result is Result.Success or Result.InProgress ? ended : result, timeout);
    }

    /// <summary>Waits for the end of a call that may go on in the background.</summary>
    private void Complete(string operation, Result result, TimeSpan timeout)
    {
        if (result is not (Result.Success or Result.InProgress))
        {
            throw Failed(operation, result);
        }

        long begun = Stopwatch.GetTimestamp();
        SpinWait turns = default;
        while (result == Result.InProgress)
        {
            turns.SpinOnce();
            result = RequireHealth(operation, Stopwatch.GetElapsedTime(begun), timeout);
        }
    }

    /// <returns>Success or in progress.</returns>
    private Result RequireHealth(string operation, TimeSpan waited, TimeSpan timeout)
    {
        Result state;
        Result asked = NativeMethods.ncclCommGetAsyncError(Handle, &state);
        if (asked != Result.Success || state is not (Result.Success or Result.InProgress))
        {
            throw Failed(operation, asked != Result.Success ? asked : state);
        }

        if (waited > timeout)
        {
            Abort();
            throw new NcclException(operation, Result.Timeout, FormattableString.Invariant($"not done within {timeout.TotalSeconds} s"));
        }

        return state;
    }

    private NcclException Failed(string operation, Result result)
    {
        NcclException failure = NcclException.Of(operation, result, _handle);
        Abort();
        return failure;
    }
}
