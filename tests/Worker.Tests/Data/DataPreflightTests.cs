using Trainer.Contracts;
using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

public sealed class DataPreflightTests : IDisposable
{
    private const string Good = """{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}""";
    private const string Silent = """{"messages": [{"role": "user", "content": "a"}]}""";
    private const string Narrated = """{"messages": [{"role": "narrator", "content": "a"}]}""";

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Good_data_has_no_problems() => Assert.Empty(Check(Dataset("a", Silent, Good)));

    [Fact]
    public void Every_problem_of_every_file_is_named_at_once()
    {
        JobConfig job = Job(Dataset("a", Good, "{", Narrated), new DatasetConfig { Path = _folder.Path("none.jsonl") }, Dataset("b"));
        IReadOnlyList<string> problems = DataPreflight.Check(job with { Model = new ModelConfig { Tokenizer = Fixtures.TokenizerDirectory, Config = _folder.Path("no.json") } });
        Assert.Collection(problems,
            p => Assert.StartsWith($"{_folder.Path("a.jsonl")}:2: malformed JSON", p, StringComparison.Ordinal),
            p => Assert.StartsWith($"{_folder.Path("a.jsonl")}:3: message 1 has the role \"narrator\"", p, StringComparison.Ordinal),
            p => Assert.StartsWith($"{_folder.Path("none.jsonl")}: no such file", p, StringComparison.Ordinal),
            p => Assert.StartsWith($"{_folder.Path("b.jsonl")}: the dataset is empty", p, StringComparison.Ordinal));
    }

    [Fact]
    public void A_missing_tokenizer_does_not_hide_bad_data()
    {
        JobConfig job = Job(Dataset("a", Good, "{")) with { Model = new ModelConfig { Tokenizer = _folder.Root } };
        Assert.Collection(DataPreflight.Check(job),
            p => Assert.StartsWith(_folder.Path("tokenizer.json") + ": no such file", p, StringComparison.Ordinal),
            p => Assert.StartsWith($"{_folder.Path("a.jsonl")}:2:", p, StringComparison.Ordinal));
    }

    [Fact]
    public void Data_in_which_nothing_would_be_trained_is_a_problem()
    {
        Assert.Contains("no token of the 2 documents would be trained", Assert.Single(Check(Dataset("a", Silent, Silent))), StringComparison.Ordinal);
        JobConfig evaluated = Job(Dataset("a", Good));
        evaluated = evaluated with { Data = evaluated.Data with { Eval = [Dataset("e", Silent)] } };
        Assert.StartsWith(_folder.Path("e.jsonl"), Assert.Single(DataPreflight.Check(evaluated)), StringComparison.Ordinal);
    }

    [Fact]
    public void Documents_that_are_too_long_are_problems_when_the_job_says_so()
    {
        JobConfig job = Job(Dataset("a", Good, Good, Good));
        IReadOnlyList<string> Problems(OverlongPolicy policy) =>
            DataPreflight.Check(job with { Data = job.Data with { MaxLength = 4, Overlong = policy } });
        Assert.Equal(3, Problems(OverlongPolicy.Error).Count(p => p.Contains("more than max_length 4", StringComparison.Ordinal)));
        Assert.Contains("3 are longer than max_length 4", Assert.Single(Problems(OverlongPolicy.Drop)), StringComparison.Ordinal);
    }

    [Fact]
    public void A_share_that_holds_nothing_out_is_a_problem()
    {
        JobConfig job = Job(Dataset("a", Good, Good));
        job = job with { Data = job.Data with { EvalFraction = 0.01 } };
        Assert.Contains("eval_fraction 0.01 holds out no usable document of 2", Assert.Single(DataPreflight.Check(job)), StringComparison.Ordinal);
        Assert.Empty(DataPreflight.Check(job with { Data = job.Data with { EvalFraction = 0.5 } }));
    }

    [Fact]
    public void At_most_twenty_problems_are_listed()
    {
        IReadOnlyList<string> problems = Check(Dataset("a", [.. Enumerable.Repeat("{", 50)]));
        Assert.Equal(20, problems.Count);
        Assert.Equal("and 31 more problems; repair these first", problems[^1]);
        Assert.DoesNotContain("more problems", Check(Dataset("a", [.. Enumerable.Repeat("{", 20)]))[^1], StringComparison.Ordinal);
    }

    [Fact]
    public void The_models_family_chooses_the_template()
    {
        _folder.Write("config.json", """{"model_type": "qwen3"}""");
        JobConfig job = Job(Dataset("a", Good));
        job = job with
        {
            Model = new ModelConfig { Config = _folder.Path("config.json"), Tokenizer = Fixtures.TokenizerDirectory },
            Data = job.Data with { Template = TemplateKind.Auto },
        };
        Assert.Empty(DataPreflight.Check(job));
        Assert.Equal("qwen3", DataPreflight.ModelType(job.Model));
        Assert.Contains("no.json: cannot be read; correct model.path or model.config",
            Assert.Single(DataPreflight.Check(job with { Model = job.Model with { Config = _folder.Path("no.json") } })), StringComparison.Ordinal);
    }

    private static IReadOnlyList<string> Check(params DatasetConfig[] datasets) => DataPreflight.Check(Job(datasets));

    private static JobConfig Job(params DatasetConfig[] datasets) => new()
    {
        Name = "test",
        Model = new ModelConfig { Tokenizer = Fixtures.TokenizerDirectory },
        Data = new DataConfig { Train = datasets, Template = TemplateKind.Qwen3 },
    };

    private DatasetConfig Dataset(string name, params string[] lines) =>
        new() { Path = _folder.Write(name + ".jsonl", string.Join('\n', lines)) };
}
