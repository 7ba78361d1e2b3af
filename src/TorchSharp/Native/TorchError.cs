using System.Runtime.InteropServices;

namespace TorchSharp.Native;

internal static class TorchError
{
    public static void ThrowIfFailed(int status)
    {
        if (status != 0)
        {
            throw Take();
        }
    }

    private static TorchException Take()
    {
        string message = Marshal.PtrToStringUTF8(NativeMethods.tt_last_error()) ?? "";
        long managed = NativeMethods.tt_take_managed_error();
        if (managed == 0)
        {
            return new TorchException(message);
        }
        GCHandle handle = GCHandle.FromIntPtr((nint)managed);
        var inner = (Exception)handle.Target!;
        handle.Free();
        return new TorchException($"{message}: {inner.Message}", inner);
    }
}
