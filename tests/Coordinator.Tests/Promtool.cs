using System.Diagnostics;

namespace Coordinator.Tests;

/// <summary>Prometheus' own judge of metrics and rules, as scripts/build.sh finds or fetches it.</summary>
internal static class Promtool
{
    /// <returns>Exit code and everything it printed.</returns>
    public static async Task<(int Code, string Text)> RunAsync(string folder, string input, params string[] arguments)
    {
        string fetched = Path.Combine(Root(), "artifacts/tools/usr/bin/promtool");
        var start = new ProcessStartInfo(File.Exists(fetched) ? fetched : "promtool", arguments)
        {
            WorkingDirectory = folder,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        Task<string> output = process.StandardOutput.ReadToEndAsync(), error = process.StandardError.ReadToEndAsync();
        await process.StandardInput.WriteAsync(input);
        process.StandardInput.Close();
        await process.WaitForExitAsync();
        return (process.ExitCode, await output + await error);
    }

    public static string Root()
    {
        string folder = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(folder, "Trainer.sln")))
        {
            folder = Path.GetDirectoryName(folder)!;
        }
        return folder;
    }
}
