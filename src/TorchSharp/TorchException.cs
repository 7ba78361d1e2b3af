using System.Runtime.InteropServices;

namespace TorchSharp;

/// <summary>
/// An operation of libtorch failed. The message names the operation, libtorch's reason, and dtype and shape of every tensor
/// argument. When the cause is an exception in a custom function's backward, that is <see cref="Exception.InnerException"/>.
/// </summary>
public sealed class TorchException(string message, Exception? inner = null) : ExternalException(message, inner)
{
    /// <summary>Whether host or device memory ran out: a smaller batch may succeed.</summary>
    public bool IsOutOfMemory => Message.Contains("out of memory", StringComparison.OrdinalIgnoreCase)
        || Message.Contains("can't allocate memory", StringComparison.Ordinal)
        || InnerException is TorchException { IsOutOfMemory: true };
}
