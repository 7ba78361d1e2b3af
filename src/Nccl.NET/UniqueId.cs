using System.Runtime.InteropServices;

namespace Nccl;

/// <summary>ncclUniqueId: what the ranks of a communicator have in common. One rank makes it, the others get its bytes.</summary>
public unsafe struct UniqueId
{
    /// <summary>In bytes.</summary>
    public const int Size = 128;

    private fixed byte _bytes[Size];

    /// <summary>A new one. This process then serves the others' first meeting, until it ends.</summary>
    /// <exception cref="NcclException">NCCL cannot, for example because it finds no network interface.</exception>
    /// <exception cref="DllNotFoundException">There is no NCCL.</exception>
    public static UniqueId Create()
    {
        UniqueId id = default;
        NcclException.ThrowIfFailed("ncclGetUniqueId", NativeMethods.ncclGetUniqueId(&id), communicator: 0);
        return id;
    }

    public static UniqueId From(ReadOnlySpan<byte> bytes) => MemoryMarshal.Read<UniqueId>(bytes);

    public readonly byte[] ToArray()
    {
        UniqueId copy = this;
        return new ReadOnlySpan<byte>(&copy, Size).ToArray();
    }
}
