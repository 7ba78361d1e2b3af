using System.ComponentModel;
using System.Runtime.InteropServices;
using System.Text.Json;
using TorchSharp;
using Trainer.Worker.Agent;

namespace Trainer.Worker.Training;

/// <summary>The life of a process that waits for the rank that it becomes: see <see cref="Standby"/>.</summary>
public static partial class StandbyProcess
{
    /// <summary>Write only, created when missing, appending: as a shell's ">>" opens a file.</summary>
    private const int Append = 0x1 | 0x40 | 0x400;

    /// <returns>0 when no rank was wanted before the agent ended; else what the rank returns.</returns>
    public static int Run()
    {
        Load();
        using var orders = new StreamReader(Console.OpenStandardInput());
        if (Read(orders) is not { } order)
        {
            return 0;
        }
        foreach ((string name, string value) in order.Environment)
        {
            OwnEnvironment.Set(name, value);
        }
        Redirect(0, "/dev/null", 0);
        Redirect(1, order.Stdout, Append);
        Redirect(2, order.Stderr, Append);
        Directory.SetCurrentDirectory(order.Place.JobDirectory);
        return RankProcess.Run(order.Place);
    }

    /// <summary>The library, and what it does once. On the CPU, where it leaves nothing behind: a GPU is for jobs.</summary>
    private static void Load()
    {
        try
        {
            using torch.Tensor first = torch.zeros(1);
        }
        catch (Exception)
        {
            // The rank meets the same, and says so where people look.
        }
    }

    private static StandbyOrder? Read(StreamReader orders)
    {
        try
        {
            return orders.ReadLine() is { } line ? JsonSerializer.Deserialize(line, StandbyJson.Default.StandbyOrder) : null;
        }
        catch (JsonException)
        {
            // The agent was killed while it wrote.
            return null;
        }
    }

    private static void Redirect(int descriptor, string path, int flags)
    {
        int file = open(path, flags, 0b110_110_110);
        if (file < 0 || dup2(file, descriptor) < 0)
        {
            throw new Win32Exception(Marshal.GetLastPInvokeError(), path);
        }
        _ = close(file);
    }

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int open(string path, int flags, int mode);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int dup2(int from, int to);

    [LibraryImport("libc")]
    private static partial int close(int descriptor);
}
