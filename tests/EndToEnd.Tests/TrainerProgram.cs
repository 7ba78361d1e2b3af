using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;

namespace Trainer.EndToEnd.Tests;

/// <summary>What a finished command line left behind.</summary>
internal sealed record Outcome(int ExitCode, string Output, string Error)
{
    public string Everything => $"exit code {ExitCode}{Environment.NewLine}{Output}{Environment.NewLine}{Error}";
}

/// <summary>The built <c>trainer</c>, run as a person runs it.</summary>
internal sealed class TrainerProgram : IDisposable
{
    /// <summary>Nothing here takes a minute on an idle machine; a busy one may.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromMinutes(4);

    private readonly Process _process;
    private readonly string _commandLine;
    private readonly Task<string> _output;
    private readonly Task<string> _error;

    private TrainerProgram(Process process, string commandLine)
    {
        _process = process;
        _commandLine = commandLine;
        _output = process.StandardOutput.ReadToEndAsync();
        _error = process.StandardError.ReadToEndAsync();
    }

    public int Pid => _process.Id;

    public bool HasExited => _process.HasExited;

    public static TrainerProgram Start(string folder, IReadOnlyDictionary<string, string> environment, params string[] arguments)
    {
        // A shell in the background ignores SIGINT and bequeaths that; a person's terminal does not.
        var start = new ProcessStartInfo("env", ["--default-signal=INT", Executable(), .. arguments])
        {
            WorkingDirectory = folder,
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            StandardOutputEncoding = Encoding.UTF8,
            StandardErrorEncoding = Encoding.UTF8,
        };
        start.Environment["DOTNET_ROOT"] = DotnetRoot();
        foreach ((string name, string value) in environment)
        {
            start.Environment[name] = value;
        }
        Process process = Process.Start(start)!;
        process.StandardInput.Close();
        return new TrainerProgram(process, "trainer " + string.Join(' ', arguments));
    }

    /// <exception cref="TimeoutException">It does not end; it is killed then.</exception>
    public async Task<Outcome> WaitAsync()
    {
        using var patience = new CancellationTokenSource(Patience);
        try
        {
            await _process.WaitForExitAsync(patience.Token);
        }
        catch (OperationCanceledException)
        {
            _process.Kill();
            throw new TimeoutException($"\"{_commandLine}\" did not end within {Patience}; it printed:\n{await _output}\n{await _error}");
        }
        return new Outcome(_process.ExitCode, await _output, await _error);
    }

    public void Dispose() => _process.Dispose();

    public static string RepositoryRoot()
    {
        DirectoryInfo? directory = new(AppContext.BaseDirectory);
        while (directory is not null && !File.Exists(Path.Combine(directory.FullName, "Trainer.sln")))
        {
            directory = directory.Parent;
        }
        return directory?.FullName ?? throw new InvalidOperationException("the tests must run inside the repository");
    }

    private static string Executable()
    {
        string path = Path.Combine(RepositoryRoot(), "artifacts", "bin", "Trainer", "release", "trainer");
        return File.Exists(path)
            ? path
            : throw new InvalidOperationException($"{path} is missing: build the tests with \"dotnet build tests/EndToEnd.Tests -c Release\"");
    }

    /// <summary>shared/Microsoft.NETCore.App/VERSION/ lies three levels below it.</summary>
    private static string DotnetRoot() =>
        Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", ".."));
}
