using System.Runtime.InteropServices;
using System.Text;

namespace Trainer.Worker.Agent;

/// <summary>
/// Variables of this process that are set after its start and yet seen by everyone: by .NET, by native libraries (getenv), by children,
/// and in /proc, where an agent looks for ranks. They are written over the values that the process was started with.
/// </summary>
internal static partial class OwnEnvironment
{
    private const int MostBytes = 4096;

    /// <summary>A value to start a process with, so that a longer one can take its place.</summary>
    public static string Room { get; } = new(' ', MostBytes);

    /// <exception cref="ArgumentException">The process was started without room for it.</exception>
    public static void Set(string name, string value)
    {
        nint room = getenv(name);
        byte[] text = Encoding.UTF8.GetBytes(value);
        // Spaces only: a value that was given is never written over, it may be shorter.
        if (room == 0 || Marshal.PtrToStringUTF8(room) != Room || text.Length > MostBytes)
        {
            throw new ArgumentException($"there is no room for {name}", nameof(name));
        }
        byte[] whole = new byte[MostBytes];
        text.CopyTo(whole, 0);
        Marshal.Copy(whole, 0, room, whole.Length);
        Environment.SetEnvironmentVariable(name, value);
    }

    [LibraryImport("libc", StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint getenv(string name);
}
