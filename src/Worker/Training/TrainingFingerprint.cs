using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Data;

namespace Trainer.Worker.Training;

/// <summary>
/// A hash of everything that decides the numbers of a training: two runs of one fingerprint are the same run. Names, reports,
/// checkpoint intervals and outputs are not part of it.
/// </summary>
public sealed class TrainingFingerprint
{
    private const int SampledBytes = 1 << 16;

    private static readonly JsonElement s_none = JsonSerializer.SerializeToElement<object?>(null);

    private readonly JobConfig _job;

    private TrainingFingerprint(JobConfig job, string hash, IReadOnlyDictionary<string, string> inputs)
    {
        _job = job;
        Hash = hash;
        Inputs = inputs;
    }

    public string Hash { get; }

    /// <inheritdoc cref="CheckpointManifest.Inputs"/>
    public IReadOnlyDictionary<string, string> Inputs { get; }

    /// <param name="data">Of the training data.</param>
    public static TrainingFingerprint Of(JobConfig job, DataFingerprint data)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Add(hash, JobConfigJson.Write(Deciding(job)));
        Add(hash, data.Hash);
        var inputs = new Dictionary<string, string>(data.Inputs);
        byte[] config = File.ReadAllBytes(JobModel.ConfigPath(job.Model));
        hash.AppendData(config);
        inputs["the model's config.json"] = Convert.ToHexStringLower(SHA256.HashData(config));
        if (job.Model.Path is { } path)
        {
            foreach (string file in Directory.EnumerateFiles(path, "model*.safetensors").Order(StringComparer.Ordinal))
            {
                byte[] sample = Sample(file);
                hash.AppendData(sample);
                inputs[$"the model's {Path.GetFileName(file)}"] = Convert.ToHexStringLower(SHA256.HashData(sample));
            }
        }

        return new TrainingFingerprint(job, Convert.ToHexStringLower(hash.GetHashAndReset())[..32], inputs);
    }

    /// <summary>What makes this training another than the one that a checkpoint is of, as sentences: "training.steps was 100 and is 200".</summary>
    public IReadOnlyList<string> Differences(CheckpointManifest saved)
    {
        string[] differences = [.. Settings(saved.Config, _job), .. saved.Inputs is { } inputs ? Files(inputs, Inputs) : []];
        return differences.Length > 0 ? differences : ["the settings are the same, but files of the data or the model are not those of then"];
    }

    private static IEnumerable<string> Files(IReadOnlyDictionary<string, string> was, IReadOnlyDictionary<string, string> now) =>
        was.Keys.Union(now.Keys).Where(name => was.GetValueOrDefault(name) != now.GetValueOrDefault(name)).Select(name =>
            !was.ContainsKey(name) ? $"{name} is new" : !now.ContainsKey(name) ? $"{name} is no longer there" : $"{name} is another than then");

    /// <param name="saved">Of another version of the program it may not be readable.</param>
    private static List<string> Settings(JsonElement saved, JobConfig job)
    {
        JobConfig before;
        try
        {
            before = JobConfigJson.Read(saved.GetRawText());
        }
        catch (JsonException)
        {
            return [];
        }

        var differences = new List<string>();
        Compare("", Json(before), Json(job));
        return differences;

        void Compare(string path, JsonElement was, JsonElement now)
        {
            if (was.ValueKind == JsonValueKind.Object && now.ValueKind == JsonValueKind.Object)
            {
                foreach (string name in was.EnumerateObject().Concat(now.EnumerateObject()).Select(property => property.Name).Distinct())
                {
                    Compare(path.Length == 0 ? name : $"{path}.{name}", Of(was, name), Of(now, name));
                }
            }
            else if (path == "data.train")
            {
                // One that is only there then or now is told as a file.
                for (int i = 0; i < Math.Min(was.GetArrayLength(), now.GetArrayLength()); i++)
                {
                    Compare($"{path}[{i}]", was[i], now[i]);
                }
            }
            else if (!JsonElement.DeepEquals(was, now))
            {
                differences.Add($"{path} was {Text(was)} and is {Text(now)}");
            }
        }

        static JsonElement Json(JobConfig job) => JsonSerializer.Deserialize<JsonElement>(JobConfigJson.Write(Compared(job)));
        static JsonElement Of(JsonElement element, string name) => element.TryGetProperty(name, out JsonElement value) ? value : s_none;
        static string Text(JsonElement value) => value.ValueKind is JsonValueKind.Null ? "not set" : PythonJson.Write(value);
    }

    /// <summary>How the sources are read is hashed with them.</summary>
    private static JobConfig Compared(JobConfig job) =>
        Deciding(job) with { Data = job.Data with { Train = [.. job.Data.Train.Select(source => source with { Path = "" })], Eval = [] } };

    private static JobConfig Deciding(JobConfig job) => job with
    {
        Name = "",
        Priority = 0,
        Model = job.Model with { Path = null, Config = null, Tokenizer = null, Recompute = false },
        Data = job.Data with { Train = [], Eval = [] },
        Training = job.Training with { ReportEvery = 1 },
        Evaluation = new EvaluationConfig(),
        Samples = new SamplesConfig(),
        Checkpoint = new CheckpointConfig(),
        Output = new OutputConfig(),
        Resources = new ResourcesConfig(),
    };

    private static void Add(IncrementalHash hash, string text) => hash.AppendData(Encoding.UTF8.GetBytes(text + "\n"));

    /// <summary>Name, length, beginning and end of a file: hashing all of a large model at each start would cost minutes.</summary>
    private static byte[] Sample(string path)
    {
        using FileStream file = File.OpenRead(path);
        using var sample = new MemoryStream();
        sample.Write(Encoding.UTF8.GetBytes(FormattableString.Invariant($"{Path.GetFileName(path)} {file.Length}\n")));
        byte[] buffer = new byte[SampledBytes];
        sample.Write(buffer, 0, file.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false));
        file.Position = Math.Max(0, file.Length - SampledBytes);
        sample.Write(buffer, 0, file.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false));
        return sample.ToArray();
    }
}
