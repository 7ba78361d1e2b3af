using Trainer.Contracts;

namespace Trainer.Cli;

/// <summary>Tells which files of a job do not exist or cannot be read to an end.</summary>
internal static class InputFiles
{
    public static IReadOnlyList<string> Check(JobConfig job)
    {
        var problems = new List<string>();
        Folder("model.path", job.Model.Path, "a Hugging Face snapshot");
        File("model.config", job.Model.Config, "a Hugging Face config.json");
        Folder("model.tokenizer", job.Model.Tokenizer, "a directory with tokenizer.json or qwen.tiktoken");
        Sets("data.train", job.Data.Train);
        Sets("data.eval", job.Data.Eval);
        return problems;

        void Sets(string key, IReadOnlyList<DatasetConfig> sets)
        {
            for (int i = 0; i < sets.Count; i++)
            {
                File($"{key}[{i}].path", sets[i].Path, "a JSONL file");
            }
        }

        void Folder(string key, string? path, string what) => Require(key, path, what, Directory.Exists, System.IO.File.Exists, "a file");

        void File(string key, string? path, string what) => Require(key, path, what, System.IO.File.Exists, Directory.Exists, "a directory");

        void Require(string key, string? path, string what, Func<string, bool> isThere, Func<string, bool> isOther, string other)
        {
            if (path is not null && LinkToNothing(path) is { } target)
            {
                problems.Add($"{key}: {path} is a link to {target}, which does not exist; give {what}");
            }
            else if (path is not null && isThere(path))
            {
                if (!Directory.Exists(path) && IsEndless(path))
                {
                    problems.Add($"{key}: {path} is empty, a pipe or a device; give {what}, a regular file");
                }
            }
            else if (path is not null)
            {
                string wrong = isOther(path) ? $"is {other}" : "does not exist";
                problems.Add($"{key}: {path} {wrong}; give {what}, relative to the job file or absolute");
            }
        }
    }

    private static string? LinkToNothing(string path) =>
        !Directory.Exists(path) && new FileInfo(path).LinkTarget is { } next && System.IO.File.ResolveLinkTarget(path, returnFinalTarget: true) is not { Exists: true } ? next : null;

    /// <summary>Only regular files have a length.</summary>
    private static bool IsEndless(string path) =>
        (File.ResolveLinkTarget(path, returnFinalTarget: true) ?? new FileInfo(path)) is not FileInfo { Exists: true, Length: > 0 };
}
