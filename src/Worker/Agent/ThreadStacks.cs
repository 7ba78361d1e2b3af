using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using Trainer.Contracts;

namespace Trainer.Worker.Agent;

/// <summary>What every thread of a rank is doing, for the person who wants to know why it hung.</summary>
internal static class ThreadStacks
{
    private static readonly TimeSpan s_debuggerTakes = TimeSpan.FromSeconds(10);

    /// <summary>Writes what the kernel says first, so that it is there even if a debugger hangs; the rank goes on.</summary>
    /// <exception cref="IOException">The file cannot be written.</exception>
    public static async Task WriteAsync(ProcessIdentity process, RankState state, string path)
    {
        await using StreamWriter file = new(path, append: true) { AutoFlush = true };
        await file.WriteLineAsync(FormattableString.Invariant($"# process {process.Pid} at {DateTimeOffset.UtcNow:u}, silent for {state.SilentSeconds:0} s, still for {state.StillSeconds:0} s"));
        await file.WriteLineAsync(FormattableString.Invariant($"phase {state.Report?.Phase}, step {state.Report?.Step}, activity: {state.Report?.Activity ?? "unknown"}"));
        foreach (string task in Tasks(process.Pid))
        {
            await file.WriteLineAsync($"""

                thread {Path.GetFileName(task)} {Read(task, "comm")}
                  state {State(task)}
                  wchan {Read(task, "wchan")}
                  syscall {Read(task, "syscall")}
                  kernel stack {Read(task, "stack")}
                """);
        }
        string pid = process.Pid.ToString(CultureInfo.InvariantCulture);
        (string Name, string[] Arguments)[] debuggers =
        [
            ("eu-stack", ["-p", pid]),
            ("gdb", ["-p", pid, "-batch", "-nx", "-iex", "set debuginfod enabled off", "-ex", "thread apply all bt 64"]),
        ];
        foreach ((string name, string[] arguments) in debuggers)
        {
            if (await RunAsync(name, arguments) is { } output)
            {
                await file.WriteLineAsync($"{Environment.NewLine}{name}:{Environment.NewLine}{output}");
                return;
            }
        }
    }

    private static string[] Tasks(int pid)
    {
        try
        {
            return Directory.GetDirectories($"/proc/{pid}/task");
        }
        catch (IOException)
        {
            return [];
        }
    }

    private static string State(string task) =>
        Read(task, "status").Split('\n', StringSplitOptions.TrimEntries).FirstOrDefault(line => line.StartsWith("State:", StringComparison.Ordinal))?["State:".Length..].Trim() ?? "unknown";

    private static string Read(string task, string name)
    {
        try
        {
            return File.ReadAllText(Path.Combine(task, name)).TrimEnd().ReplaceLineEndings("\n    ");
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return "not readable";
        }
    }

    /// <summary>Null when it is not installed.</summary>
    private static async Task<string?> RunAsync(string name, string[] arguments)
    {
        using var limit = new CancellationTokenSource(s_debuggerTakes);
        Process? debugger = null;
        try
        {
            debugger = Process.Start(new ProcessStartInfo(name, arguments) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false })!;
            debugger.StandardInput.Close();
            Task<string> errors = debugger.StandardError.ReadToEndAsync(limit.Token);
            string output = await debugger.StandardOutput.ReadToEndAsync(limit.Token);
            return output + await errors;
        }
        catch (Win32Exception)
        {
            return null;
        }
        catch (OperationCanceledException)
        {
            // Its death lets go of the rank.
            debugger!.Kill();
            return $"did not finish within {s_debuggerTakes.TotalSeconds:0} s";
        }
        finally
        {
            debugger?.Dispose();
        }
    }
}
