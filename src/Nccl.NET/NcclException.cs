using System.Runtime.InteropServices;

namespace Nccl;

/// <summary>A call failed. The communicator on which it did has been aborted.</summary>
public sealed class NcclException : Exception
{
    internal NcclException(string operation, Result result, string detail)
        : base($"{operation}: {detail}") => (Operation, Result) = (operation, result);

    public string Operation { get; }

    public Result Result { get; }

    /// <param name="communicator">0: none.</param>
    internal static void ThrowIfFailed(string operation, Result result, nint communicator)
    {
        if (result is not Result.Success)
        {
            throw Of(operation, result, communicator);
        }
    }

    /// <summary>With what NCCL says of its last error, which is often the cause.</summary>
    internal static NcclException Of(string operation, Result result, nint communicator)
    {
        string name = Text(NativeMethods.ncclGetErrorString(result)), last = Text(NativeMethods.ncclGetLastError(communicator));
        return new NcclException(operation, result, last.Length == 0 ? $"{name} ({(int)result})" : $"{name} ({(int)result}): {last}");
    }

    private static string Text(nint utf8) => Marshal.PtrToStringUTF8(utf8)?.Trim().ReplaceLineEndings(" ") ?? "";
}
