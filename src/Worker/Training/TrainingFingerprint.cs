using System.Security.Cryptography;
using System.Text;
using Trainer.Contracts;

namespace Trainer.Worker.Training;

/// <summary>
/// A hash of everything that decides the numbers of a training: two runs of one fingerprint are the same run. Names, reports,
/// checkpoint intervals and outputs are not part of it.
/// </summary>
public static class TrainingFingerprint
{
    private const int SampledBytes = 1 << 16;

    /// <param name="data">The fingerprint of the prepared training data.</param>
    public static string Of(JobConfig job, string data)
    {
        JobConfig deciding = job with
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
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Add(hash, JobConfigJson.Write(deciding));
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
