using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Trainer.Benchmarks;

/// <summary>The built command line.</summary>
internal static class TrainerProgram
{
    public static ProcessStartInfo Command(string home, params string[] arguments)
    {
        var start = new ProcessStartInfo(Path.Combine(Repository(), "artifacts", "bin", "Trainer", "release", "trainer"), arguments)
        {
            RedirectStandardOutput = false, WorkingDirectory = home, UseShellExecute = false,
        };
        start.Environment["TRAINER_HOME"] = home;
        start.Environment.Remove("TRAINER_COORDINATOR");
        start.Environment.Remove("TRAINER_TOKEN");
        start.Environment["DOTNET_ROOT"] = Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", ".."));
        return start;
    }

    public static string Repository()
    {
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "Trainer.sln")))
        {
            folder = folder.Parent;
        }
        return folder?.FullName ?? throw new InvalidOperationException("the benchmark must run inside the repository");
    }
}
