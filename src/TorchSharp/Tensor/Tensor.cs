using TorchSharp.Native;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    /// <summary>
    /// A handle of a libtorch tensor. Owned by the innermost <see cref="DisposeScope"/> of the thread that made it, or by
    /// the caller when there is none; there is no finalizer.
    /// </summary>
    public partial class Tensor : IDisposable
    {
        private static long s_totalCount;

        private nint _handle;

        /// <summary>Takes over a native handle and enters the innermost scope.</summary>
        internal Tensor(nint handle) : this(handle, DisposeScope.Innermost)
        {
        }

        private protected Tensor(nint handle, DisposeScope? scope)
        {
            _handle = handle;
            Interlocked.Increment(ref s_totalCount);
            scope?.Add(this);
        }

        /// <summary>Tensors alive in the process. Unchanged over a training step that leaks nothing.</summary>
        public static long TotalCount => Interlocked.Read(ref s_totalCount);

        /// <summary>The native at::Tensor*, valid until this object is disposed.</summary>
        public nint Handle
        {
            get
            {
                ObjectDisposedException.ThrowIf(_handle == 0, this);
                return _handle;
            }
        }

        public bool IsInvalid => _handle == 0;

        /// <summary>A name for messages; libtorch does not know it.</summary>
        public string? name { get; set; }

        internal DisposeScope? OwningScope { get; set; }
        internal int ScopeSlot { get; set; }

        /// <summary>Wraps a handle that native code made for the caller.</summary>
        public static Tensor UnsafeCreateTensor(nint handle) => new(handle);

        /// <summary>Another handle of the same tensor, in the innermost scope.</summary>
        public Tensor alias() => new(tt_tensor_alias(Handle));

        public Tensor MoveToOuterDisposeScope()
        {
            OwningScope?.MoveToOuter(this);
            return this;
        }

        public Tensor MoveToOtherDisposeScope(DisposeScope? other)
        {
            OwningScope?.MoveToOther(other, this);
            return this;
        }

        public Tensor MoveToOtherDisposeScope(Tensor other) => MoveToOtherDisposeScope(other.OwningScope);

        public Tensor DetachFromDisposeScope()
        {
            OwningScope?.Detach(this);
            return this;
        }

        public void Dispose()
        {
            Dispose(true);
            GC.SuppressFinalize(this);
        }

        public override bool Equals(object? obj) => ReferenceEquals(this, obj);

        public override int GetHashCode() => base.GetHashCode();

        protected virtual void Dispose(bool disposing)
        {
            nint handle = TakeHandle();
            if (handle != 0)
            {
                tt_tensor_free(handle);
            }
        }

        /// <summary>Leaves this object empty and hands its native tensor over.</summary>
        private protected static nint Take(Tensor tensor)
        {
            nint handle = tensor.Handle;
            tensor.TakeHandle();
            return handle;
        }

        private nint TakeHandle()
        {
            nint handle = Interlocked.Exchange(ref _handle, 0);
            if (handle != 0)
            {
                Interlocked.Decrement(ref s_totalCount);
                OwningScope?.Remove(this);
            }
            return handle;
        }

        private static Tensor? FromOptional(nint handle) => handle == 0 ? null : new Tensor(handle);

        private static void Check(int status) => TorchError.ThrowIfFailed(status);
    }
}
