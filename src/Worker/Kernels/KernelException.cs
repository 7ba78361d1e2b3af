using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Trainer.Worker.Kernels;

/// <summary>A call into libtrainer_kernels was refused or failed.</summary>
public sealed class KernelException(KernelStatus status, string call, string reason)
    : ExternalException($"{call}: {status}: {reason}")
{
    public KernelStatus Status { get; } = status;

    /// <summary>The C function.</summary>
    public string Call { get; } = call;

    /// <summary>The library's own words, beginning with the argument's name where an argument was refused.</summary>
    public string Reason { get; } = reason;

    internal static void ThrowIfFailed(KernelStatus status, [CallerArgumentExpression(nameof(status))] string call = "")
    {
        if (status != KernelStatus.Ok)
        {
            string function = call[..call.IndexOf('(', StringComparison.Ordinal)].Split('.')[^1];
            throw new KernelException(status, function, Marshal.PtrToStringUTF8(TrainerKernels.tn_last_error()) ?? "");
        }
    }
}
