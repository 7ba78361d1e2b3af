namespace Trainer.Worker.Tests;

/// <summary>Files of the checkout that tests read.</summary>
internal static class Repository
{
    /// <summary>A path below the folder that holds Trainer.sln.</summary>
    public static string File(params string[] parts)
    {
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !System.IO.File.Exists(Path.Combine(folder.FullName, "Trainer.sln")))
        {
            folder = folder.Parent;
        }

        return Path.Combine([folder?.FullName ?? throw new InvalidOperationException("Trainer.sln was not found above the tests"), .. parts]);
    }
}
