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
    public static JobConfig Parse(string text, string path, IEnumerable<string>? sets = null) =>
        Parse(text, path, sets, Path.GetDirectoryName(Path.GetFullPath(path)));

    /// <summary>What a client sent, by the rules of files. It lies in no folder, so that its paths must be absolute.</summary>
    /// <exception cref="ConfigException">Each problem.</exception>
    public static JobConfig Receive(JobConfig job) => Parse(JobConfigJson.Write(job), "config.json", [], folder: null);

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

    /// <param name="folder">That relative paths mean; null: there is none.</param>
    private static JobConfig Parse(string text, string path, IEnumerable<string>? sets, string? folder)
    {
        var problems = new List<string>();
        if (new ConfigYaml(path, problems).ReadDocument(text) is not { } root)
        {
            throw new ConfigException(problems);
        }
        root.Remove("$schema");  // for editors
        ConfigOverrides.Apply(root, sets ?? [], problems);
        var binder = new ConfigBinder(problems);
        var job = (JobConfig)binder.BindRecord(typeof(JobConfig), root, "");
        ConfigRules.Check(job, binder, problems, absolute: folder is null);
        return problems.Count == 0
            ? Resolve(job, folder ?? "/")
            : throw new ConfigException(problems);
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
        try
        {
            // A device may have no length and no end.
            byte[] bytes = new byte[MaxBytes + 1];
            using FileStream file = File.OpenRead(path);
            int length = file.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
            if (length > MaxBytes)
            {
                throw new ConfigException($"{path}: the file is larger than 1 MiB and cannot be a job; check the path");
            }
            using var reader = new StreamReader(new MemoryStream(bytes, 0, length), new UTF8Encoding(false, throwOnInvalidBytes: true));
            string text = reader.ReadToEnd();
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
