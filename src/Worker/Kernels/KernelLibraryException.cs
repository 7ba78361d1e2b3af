namespace Trainer.Worker.Kernels;

/// <summary>libtrainer_kernels can't be used; the message says why and how to cure it.</summary>
public sealed class KernelLibraryException(LibraryState state, string message, Exception? inner = null) : DllNotFoundException(message, inner)
{
    public LibraryState State { get; } = state;
}

/// <summary>What became of loading libtrainer_kernels.</summary>
public enum LibraryState
{
    Loaded,
    Missing,

    /// <summary>The file is there, but the system's loader refused it.</summary>
    Unloadable,

    /// <summary>Built from other sources.</summary>
    OtherVersion,
}
