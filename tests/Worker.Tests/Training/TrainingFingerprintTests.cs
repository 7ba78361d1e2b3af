using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Data;
using Trainer.Worker.Tests.Checkpoints;
using Trainer.Worker.Training;

namespace Trainer.Worker.Tests.Training;

public sealed class TrainingFingerprintTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public TrainingFingerprintTests()
    {
        File.WriteAllText(_directory.File("config.json"), "{}");
        File.WriteAllText(_directory.File("model.safetensors"), "weights");
        File.WriteAllText(_directory.File("train.jsonl"), "{\"text\": \"once\"}\n");
    }

    private JobConfig Job => new()
    {
        Name = "a",
        Model = new ModelConfig { Path = _directory.Path },
        Data = new DataConfig { Train = [new DatasetConfig { Path = _directory.File("train.jsonl") }], Template = TemplateKind.Chatml },
    };

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void What_differs_between_two_trainings_is_named_and_what_decides_no_number_is_not()
    {
        CheckpointManifest saved = Saved(Job);
        JobConfig other = Job with { Name = "b", Priority = 3, Training = Job.Training with { Threads = 7, ReportEvery = 9 }, Lora = new LoraConfig { Rank = 4 } };
        IReadOnlyList<string> differences = Of(other).Differences(saved);
        Assert.Equal(2, differences.Count);
        Assert.Contains(differences, difference => difference.StartsWith("training.threads was ", StringComparison.Ordinal) && difference.EndsWith(" and is 7", StringComparison.Ordinal));
        Assert.Contains(differences, difference => difference.StartsWith("lora was not set and is {", StringComparison.Ordinal));
    }

    [Fact]
    public void The_file_that_is_another_is_named()
    {
        CheckpointManifest saved = Saved(Job);
        Assert.Equal(saved.Fingerprint, Of(Job).Hash);

        File.WriteAllText(_directory.File("train.jsonl"), "{\"text\": \"twice\"}\n");
        RequireDifferences(saved, Job, "the file of data.train[0] is another than then");
        File.WriteAllText(_directory.File("model.safetensors"), "Weights");
        RequireDifferences(saved, Job, "the file of data.train[0] is another than then", "the model's model.safetensors is another than then");
        File.WriteAllText(_directory.File("train.jsonl"), "{\"text\": \"once\"}\n");
        File.Move(_directory.File("model.safetensors"), _directory.File("model-1.safetensors"));
        RequireDifferences(saved, Job, "the model's model.safetensors is no longer there", "the model's model-1.safetensors is new");
    }

    [Fact]
    public void How_a_source_is_read_and_sources_that_came_are_named()
    {
        CheckpointManifest saved = Saved(Job);
        DatasetConfig source = Job.Data.Train[0];
        RequireDifferences(saved, Job with { Data = Job.Data with { Train = [source with { Limit = 5 }] } }, "data.train[0].limit was not set and is 5");
        RequireDifferences(saved, Job with { Data = Job.Data with { Train = [source, source] } }, "the file of data.train[1] is new");
    }

    [Fact]
    public void Of_a_checkpoint_that_tells_no_files_the_settings_are_compared()
    {
        CheckpointManifest saved = Saved(Job) with { Inputs = null };
        RequireDifferences(saved, Job with { Seed = 9 }, $"seed was {Job.Seed} and is 9");
        const string Files = "the settings are the same, but files of the data or the model are not those of then";
        RequireDifferences(saved, Job, Files);
        RequireDifferences(saved with { Config = JsonSerializer.SerializeToElement(3) }, Job, Files);
    }

    [Fact]
    public void A_manifest_without_files_has_the_bytes_of_earlier_builds()
    {
        CheckpointManifest saved = Saved(Job);
        Assert.DoesNotContain("inputs", System.Text.Encoding.UTF8.GetString((saved with { Inputs = null }).ToBytes()), StringComparison.Ordinal);
        Assert.Equal(saved.Inputs, CheckpointManifest.Parse(saved.ToBytes()).Inputs);
    }

    private static void RequireDifferences(CheckpointManifest saved, JobConfig now, params string[] expected)
    {
        TrainingFingerprint fingerprint = Of(now);
        Assert.Equal(expected, fingerprint.Differences(saved));
    }

    private static TrainingFingerprint Of(JobConfig job) => TrainingFingerprint.Of(job, PreparedData.TrainFingerprint(
        job.Data, job.Seed, Data.Fixtures.Qwen3, ChatTemplate.Create(TemplateKind.Chatml, ChatOptions.From(job.Data))));

    private static CheckpointManifest Saved(JobConfig job)
    {
        TrainingFingerprint fingerprint = Of(job);
        return new CheckpointManifest
        {
            Job = job.Name, Fingerprint = fingerprint.Hash, Inputs = fingerprint.Inputs, Step = 1, Attempt = 1, WorldSize = 1, Cursor = 0, Seed = job.Seed,
            Created = DateTimeOffset.UnixEpoch, Files = [new CheckpointFile("step-00000001/attempt-1/rank-0.safetensors", 1, "00", CheckpointFileKind.Shard)],
            Libraries = new Dictionary<string, string>(), Config = JsonSerializer.Deserialize<JsonElement>(JobConfigJson.Write(job)),
        };
    }
}
