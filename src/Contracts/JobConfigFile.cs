using System.Text;

namespace Trainer.Contracts;

/// <summary>Reads a job file: strict YAML over <see cref="JobConfig"/>, every problem at once.</summary>
public static class JobConfigFile
{
    private const int MaxBytes = 1 << 20;

    /// <summary>
    /// Loads a job. <paramref name="sets"/> are <c>a.b[0].c=value</c> options that win over the file. Relative paths mean the
    /// folder of the file, whoever gives them.
    /// </summary>
    /// <exception cref="ConfigException">Each problem as <c>file:line:col key: what, the cure</c>.</exception>
    public static JobConfig Load(string path, IEnumerable<string>? sets = null)
    {
        ArgumentNullException.ThrowIfNull(path);
        return Parse(Read(path), path, sets);
    }

    /// <summary>As <see cref="Load"/>, of a text that would lie at <paramref name="path"/>.</summary>
    public static JobConfig Parse(string text, string path, IEnumerable<string>? sets = null)
    {
        var problems = new List<string>();
        if (new ConfigYaml(path, problems).ReadDocument(text) is not { } root)
        {
            throw new ConfigException(problems);
        }
        root.Entries.RemoveAll(entry => entry.Key == "$schema");  // for editors
        ConfigOverrides.Apply(root, sets ?? [], problems);
        var binder = new ConfigBinder(problems);
        var job = (JobConfig)binder.BindRecord(typeof(JobConfig), root, "");
        ConfigRules.Check(job, binder, problems);
        return problems.Count == 0
            ? Resolve(job, Path.GetDirectoryName(Path.GetFullPath(path))!)
            : throw new ConfigException(problems);
    }

    /// <summary>Where a key was written, for problems that show only later: <c>file:line:col key</c>, or <c>--set key</c>.</summary>
    public static string Place(string path, IEnumerable<string>? sets, string key)
    {
        var problems = new List<string>();
        if (new ConfigYaml(path, problems).ReadDocument(Read(path)) is not { } root)
        {
            return path;
        }
        ConfigOverrides.Apply(root, sets ?? [], problems);
        var binder = new ConfigBinder(problems);
        binder.BindRecord(typeof(JobConfig), root, "");
        return ConfigRules.Place(binder, key).At(key);
    }

    private static string Read(string path)
    {
        if (Directory.Exists(path))
        {
            throw new ConfigException($"{path}: this is a directory; name the YAML file in it");
        }
        if (!File.Exists(path))
        {
            throw new ConfigException($"{path}: there is no such file; check the path");
        }
        if (new FileInfo(path).Length > MaxBytes)
        {
            throw new ConfigException($"{path}: the file is larger than 1 MiB and cannot be a job; check the path");
        }
        try
        {
            string text = File.ReadAllText(path, new UTF8Encoding(false, throwOnInvalidBytes: true));
            return text.IndexOf('\0', StringComparison.Ordinal) is >= 0 and int at
                ? throw new ConfigException($"{path}:{text.AsSpan(0, at).Count('\n') + 1}: a NUL byte; a job is plain text, so remove it")
                : text;
        }
        catch (DecoderFallbackException)
        {
            throw new ConfigException($"{path}: the file is not UTF-8 text; save it as UTF-8");
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new ConfigException($"{path}: the file cannot be read ({error.Message}); check its permissions");
        }
    }

    private static JobConfig Resolve(JobConfig job, string folder)
    {
        return job with
        {
            Model = job.Model with { Path = Full(job.Model.Path), Config = Full(job.Model.Config), Tokenizer = Full(job.Model.Tokenizer) },
            Data = job.Data with { Train = Sets(job.Data.Train), Eval = Sets(job.Data.Eval) },
            Checkpoint = job.Checkpoint with { Store = Full(job.Checkpoint.Store), ResumeFrom = Full(job.Checkpoint.ResumeFrom) },
            Output = job.Output with { Path = Full(job.Output.Path) },
        };

        IReadOnlyList<DatasetConfig> Sets(IReadOnlyList<DatasetConfig> sets) => [.. sets.Select(set => set with { Path = Full(set.Path)! })];

        string? Full(string? path)
        {
            if (path is null || path.Contains("://", StringComparison.Ordinal))
            {
                return path;
            }
            string home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
            return Path.GetFullPath(path.StartsWith("~/", StringComparison.Ordinal) ? Path.Combine(home, path[2..]) : path, folder);
        }
    }
}
