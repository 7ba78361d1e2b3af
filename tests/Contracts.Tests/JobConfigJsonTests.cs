using System.Text.Json;
using Trainer.Contracts;

namespace Contracts.Tests;

public sealed class JobConfigJsonTests
{
    private const string Least = """
        {"name": "demo", "model": {"path": "/snapshot"}, "data": {"train": [{"path": "/train.jsonl"}]}}
        """;

    [Fact]
    public void Keys_left_out_of_JSON_get_the_defaults_of_the_records()
    {
        JobConfig job = JobConfigJson.Read(Least);

        Assert.Equal(42, job.Seed);
        Assert.Equal(4096, job.Training.BatchTokens);
        Assert.Equal(2048, job.Data.MaxLength);
        Assert.Equal(0.95, job.Optimizer.Beta2);
        Assert.Empty(job.Samples.Prompts);
        Assert.Null(job.Lora);
        Assert.Equal((1, "default"), (job.Resources.Ranks, job.Resources.Pool));
    }

    [Fact]
    public void A_job_goes_to_JSON_and_back_unchanged()
    {
        JobConfig job = JobConfigFile.Parse(JobConfigFileTests.Full, "/jobs/full.yaml");

        string json = JobConfigJson.Write(job);

        Assert.Equal(json, JobConfigJson.Write(JobConfigJson.Read(json)));
        Assert.Contains("\"template\": \"qwen2.5\"", json, StringComparison.Ordinal);
        Assert.Contains("\"dtype\": \"bfloat16\"", json, StringComparison.Ordinal);
    }

    [Fact]
    public void The_JSON_of_a_job_obeys_the_rules_of_job_files()
    {
        string json = JobConfigJson.Write(JobConfigFile.Parse(JobConfigFileTests.Full, "/jobs/full.yaml"));

        Assert.Equal(json, JobConfigJson.Write(JobConfigFile.Parse(json, "/elsewhere/config.json")));
        Assert.Throws<ConfigException>(() => JobConfigFile.Parse(json, "/elsewhere/config.json", ["lora=null"]));
    }

    [Theory]
    [InlineData("\"seed\": 1", "\"sead\": 1")]
    [InlineData("\"seed\": 1", "\"seed\": \"1\"")]
    [InlineData("\"seed\": 1", "\"output\": null")]
    [InlineData("\"seed\": 1", "\"model\": {\"path\": \"x\", \"dtype\": 1}")]
    public void JSON_is_as_strict_as_YAML(string good, string bad)
    {
        string text = Least.Replace("\"name\"", $"{good}, \"name\"", StringComparison.Ordinal);

        Assert.NotNull(JobConfigJson.Read(text));
        Assert.Throws<JsonException>(() => JobConfigJson.Read(text.Replace(good, bad, StringComparison.Ordinal)));
    }
}
