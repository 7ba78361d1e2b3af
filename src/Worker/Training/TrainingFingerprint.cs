using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Data;

namespace Trainer.Worker.Training;

/// <summary>
/// A hash of everything that decides the numbers of a training: two runs of one fingerprint are the same run. Names, reports,
/// checkpoint intervals and outputs are not part of it.
/// </summary>
public static class TrainingFingerprint
{
    private const int SampledBytes = 1 << 16;

    private static readonly JsonElement s_none = JsonSerializer.SerializeToElement<object?>(null);

    /// <param name="data">The fingerprint of the prepared training data.</param>
    public static string Of(JobConfig job, string data)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Add(hash, JobConfigJson.Write(Deciding(job)));
        Add(hash, data);
        hash.AppendData(File.ReadAllBytes(JobModel.ConfigPath(job.Model)));
        if (job.Model.Path is { } path)
        {
            foreach (string file in Directory.EnumerateFiles(path, "model*.safetensors").Order(StringComparer.Ordinal))
            {
                AddSample(hash, file);
            }
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset())[..32];
    }

    /// <summary>The settings that make two trainings different ones, as sentences: "training.steps was 100 and is 200".</summary>
    /// <param name="saved">The configuration of a checkpoint; of another version of the program it may not be readable.</param>
    public static IReadOnlyList<string> Differences(JsonElement saved, JobConfig job)
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
            else if (!JsonElement.DeepEquals(was, now))
            {
                differences.Add($"{path} was {Text(was)} and is {Text(now)}");
            }
        }

        static JsonElement Json(JobConfig job) => JsonSerializer.Deserialize<JsonElement>(JobConfigJson.Write(Deciding(job)));
        static JsonElement Of(JsonElement element, string name) => element.TryGetProperty(name, out JsonElement value) ? value : s_none;
        static string Text(JsonElement value) => value.ValueKind is JsonValueKind.Null ? "not set" : PythonJson.Write(value);
    }

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

    /// <summary>Length, beginning and end of a file: hashing all of a large model at each start would cost minutes.</summary>
    private static void AddSample(IncrementalHash hash, string path)
    {
        using FileStream file = File.OpenRead(path);
        Add(hash, FormattableString.Invariant($"{Path.GetFileName(path)} {file.Length}"));
        byte[] buffer = new byte[SampledBytes];
        hash.AppendData(buffer, 0, file.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false));
        file.Position = Math.Max(0, file.Length - SampledBytes);
        hash.AppendData(buffer, 0, file.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false));
    }
}
