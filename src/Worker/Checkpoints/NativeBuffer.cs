using System.Buffers;
using System.Runtime.InteropServices;

namespace Trainer.Worker.Checkpoints;

/// <summary>
/// Host memory outside the managed heap, of any length: either ours (freed on dispose) or borrowed from whoever pinned it
/// (told on dispose). Disposing twice is harmless; using it afterwards is not.
/// </summary>
public sealed unsafe class NativeBuffer : IDisposable
{
    // A cache line: good for the widest vector loads and for DMA.
    private const nuint Alignment = 64;
    private readonly Action? _release;
    private bool _disposed;

    private NativeBuffer(nint pointer, long length, Action? release)
    {
        Pointer = pointer;
        Length = length;
        _release = release;
    }

    public nint Pointer { get; }

    /// <summary>Bytes.</summary>
    public long Length { get; }

    /// <summary>Memory of our own, not cleared.</summary>
    public static NativeBuffer Allocate(long length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        nint pointer = (nint)NativeMemory.AlignedAlloc((nuint)Math.Max(length, 1), Alignment);
        return new NativeBuffer(pointer, length, () => NativeMemory.AlignedFree((void*)pointer));
    }

    /// <summary>Memory of our own with a copy of <paramref name="content"/>.</summary>
    public static NativeBuffer Copy(ReadOnlySpan<byte> content)
    {
        NativeBuffer buffer = Allocate(content.Length);
        content.CopyTo(buffer.AsSpan(0, content.Length));
        return buffer;
    }

    /// <summary>Memory of someone else, valid until <paramref name="release"/> is called on dispose.</summary>
    public static NativeBuffer Borrow(nint pointer, long length, Action? release = null)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        return new NativeBuffer(pointer, length, release);
    }

    public Span<byte> AsSpan(long offset, int length)
    {
        RequireInside(offset, length);
        return new Span<byte>((byte*)Pointer + offset, length);
    }

    public Memory<byte> AsMemory(long offset, int length)
    {
        RequireInside(offset, length);
        return new Window((byte*)Pointer + offset, length).Memory;
    }

    public void Dispose()
    {
        if (!_disposed)
        {
            _disposed = true;
            _release?.Invoke();
        }
    }

    private void RequireInside(long offset, int length)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, Length - length);
    }

    private sealed class Window(byte* start, int length) : MemoryManager<byte>
    {
        public override Span<byte> GetSpan() => new(start, length);

        public override MemoryHandle Pin(int elementIndex = 0) => new(start + elementIndex);

        public override void Unpin()
        {
        }

        protected override void Dispose(bool disposing)
        {
        }
    }
}
