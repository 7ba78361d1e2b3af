using System.Text.Json.Nodes;
using Trainer.Contracts;

namespace Contracts.Tests;

public sealed class JsonSchemaTests
{
    private static readonly string s_configs = Path.Combine(Repository(), "configs");

    /// <summary>Write it anew with: ./trainer schema > configs/job.schema.json</summary>
    [Fact]
    public void The_schema_for_editors_is_that_of_the_code() =>
        Assert.True(JsonNode.DeepEquals(JsonSchemas.OfJob(), JsonNode.Parse(File.ReadAllText(Path.Combine(s_configs, "job.schema.json")))),
            "configs/job.schema.json is out of date: ./trainer schema > configs/job.schema.json");

    [Fact]
    public void It_tells_ranges_defaults_choices_and_comments()
    {
        JsonNode properties = JsonSchemas.OfJob()["properties"]!;
        JsonNode rate = properties["optimizer"]!["properties"]!["learning_rate"]!, kind = properties["model"]!["properties"]!["attention"]!;
        Assert.Equal((0, 100, 1e-5), ((double)rate["exclusiveMinimum"]!, (double)rate["maximum"]!, (double)rate["default"]!));
        Assert.Equal(["auto", "flash", "sdpa", "math"], kind["enum"]!.AsArray().Select(choice => (string)choice!));
        Assert.Equal("Keeps only each block's input and computes the block again in backward.", (string)properties["model"]!["properties"]!["recompute"]!["description"]!);
        Assert.Equal(["name", "model", "data"], JsonSchemas.OfJob()["required"]!.AsArray().Select(key => (string)key!));
    }

    [Fact]
    public void Every_job_file_names_it()
    {
        string[] files = Directory.GetFiles(s_configs, "*.yaml");
        Assert.NotEmpty(files);
        Assert.All(files, file => Assert.Equal("# yaml-language-server: $schema=job.schema.json", File.ReadLines(file).First()));
    }

    private static string Repository()
    {
        string folder = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(folder, "Trainer.sln")))
        {
            folder = Path.GetDirectoryName(folder)!;
        }
        return folder;
    }
}
