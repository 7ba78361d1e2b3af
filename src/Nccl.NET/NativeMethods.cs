using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

[assembly: DisableRuntimeMarshalling]

namespace Nccl;

/// <summary>nccl.h, and of the CUDA driver what it takes to wait for a stream. Both keep these signatures in all versions.</summary>
internal static unsafe partial class NativeMethods
{
    internal const string Library = "nccl";
    internal const string Driver = "libcuda.so.1";

    static NativeMethods() => NativeLibrary.SetDllImportResolver(
        typeof(NativeMethods).Assembly, (name, _, _) => name == Library ? NcclLibrary.Load() : 0);

    [LibraryImport(Library)] internal static partial Result ncclGetVersion(int* version);
    [LibraryImport(Library)] internal static partial Result ncclGetUniqueId(UniqueId* id);
    [LibraryImport(Library)] internal static partial Result ncclCommInitRankConfig(nint* communicator, int ranks, UniqueId id, int rank, NativeConfig* config);
    [LibraryImport(Library)] internal static partial Result ncclCommFinalize(nint communicator);
    [LibraryImport(Library)] internal static partial Result ncclCommDestroy(nint communicator);
    [LibraryImport(Library)] internal static partial Result ncclCommAbort(nint communicator);
    [LibraryImport(Library)] internal static partial Result ncclCommGetAsyncError(nint communicator, Result* state);
    [LibraryImport(Library)] internal static partial nint ncclGetErrorString(Result result);
    [LibraryImport(Library)] internal static partial nint ncclGetLastError(nint communicator);
    [LibraryImport(Library)] internal static partial Result ncclGroupStart();
    [LibraryImport(Library)] internal static partial Result ncclGroupEnd();

    [LibraryImport(Library)]
    internal static partial Result ncclAllReduce(nint send, nint receive, nuint count, DataType type, ReduceOp op, nint communicator, nint stream);

    [LibraryImport(Library)]
    internal static partial Result ncclBroadcast(nint send, nint receive, nuint count, DataType type, int root, nint communicator, nint stream);

    [LibraryImport(Driver)] internal static partial int cuStreamQuery(nint stream);
}

/// <summary>ncclConfig_t as of 2.14: later versions take their defaults for what it lacks.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct NativeConfig
{
    private nuint _size;
    private uint _magic;
    private uint _version;
    private int _blocking;
    private int _clusterSize;

    /// <summary>Calls return before they are done, so that they can be given up.</summary>
    internal static unsafe NativeConfig NonBlocking => new()
    {
        _size = (nuint)sizeof(NativeConfig),
        _magic = 0xcafebeef,
        _version = 21400,
        _blocking = 0,
        _clusterSize = int.MinValue,
    };
}
