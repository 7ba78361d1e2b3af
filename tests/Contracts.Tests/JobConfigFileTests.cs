using Trainer.Contracts;

namespace Contracts.Tests;

public sealed class JobConfigFileTests
{
    /// <summary>Every key once.</summary>
    public const string Full = """
        name: full
        seed: 7
        priority: 5
        model:
          path: snapshots/qwen
          tokenizer: ~/tokenizer
          dtype: bfloat16
          attention: flash
          recompute: true
          device: cpu
        data:
          train:
            - path: train.jsonl.gz
              format: completion
              mapping: {prompt: question, completion: answer}
              limit: 100
            - {path: /abs/more.jsonl}
          eval: [{path: test.jsonl, format: sharegpt}]
          max_length: 512
          overlong: drop
          template: qwen2.5
          train_on_prompt: true
          mask_history: true
          system: You are "terse" 🤖 é.
        lora: {rank: 8, alpha: 16, dropout: 0.1, rslora: true, target_modules: [q_proj, v_proj]}
        training: {steps: 200, batch_tokens: 1024, batch_documents: 4, gradient_accumulation: 2, threads: 2, report_every: 5}
        optimizer:
          learning_rate: 2e-5
          beta1: 0.8
          beta2: 0.99
          epsilon: 1e-9
          weight_decay: 0
          max_gradient_norm: 0.5
          schedule: linear
          warmup_steps: 10
          min_learning_rate: 1.0e-6
        evaluation: {every: 50, max_documents: 64}
        samples:
          prompts: ["What is 2+2?", plain text]
          max_new_tokens: 16
          every: 50
          temperature: 0.7
        checkpoint: {every: 50, keep: 3, store: azblob://runs/demo, resume_from: ../old}
        output: {path: out, merge: true}
        resources: {ranks: 4, pool: big-gpus}
        """;

    private const string Least = """
        name: demo
        model:
          path: m
        data:
          train:
            - path: t.jsonl
        """;

    [Fact]
    public void Every_key_is_read_and_relative_paths_mean_the_folder_of_the_file()
    {
        JobConfig job = JobConfigFile.Parse(Full, "/jobs/full.yaml");

        Assert.Equal("/jobs/snapshots/qwen", job.Model.Path);
        Assert.Equal(Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), "tokenizer"), job.Model.Tokenizer);
        Assert.Equal(DType.Bfloat16, job.Model.Dtype);
        Assert.Equal(TemplateKind.Qwen25, job.Data.Template);
        Assert.Equal(["/jobs/train.jsonl.gz", "/abs/more.jsonl"], job.Data.Train.Select(set => set.Path));
        Assert.Equal("answer", job.Data.Train[0].Mapping["completion"]);
        Assert.Equal("You are \"terse\" 🤖 é.", job.Data.System);
        Assert.Equal(["q_proj", "v_proj"], job.Lora!.TargetModules);
        Assert.Equal(2e-5, job.Optimizer.LearningRate);
        Assert.Equal("azblob://runs/demo", job.Checkpoint.Store);
        Assert.Equal("/old", job.Checkpoint.ResumeFrom);
        Assert.Equal("/jobs/out", job.Output.Path);
        Assert.Equal((4, "big-gpus"), (job.Resources.Ranks, job.Resources.Pool));
    }

    /// <summary>Each case: the lines after a good name, model and data (or a whole file when it starts at column 1 with '|'), then every problem.</summary>
    public static TheoryData<string, string[]> BadFiles => new()
    {
        { "|", ["bad.yaml:1:1: the file is empty; a job needs at least name, model and data"] },
        { "|# only a comment", ["bad.yaml:1:1: the file is empty; a job needs at least name, model and data"] },
        { "|- a", ["bad.yaml:1:1: a job is a mapping of keys to values, such as \"name: demo\"; this is a list"] },
        { "|hello", ["bad.yaml:1:1: a job is a mapping of keys to values, such as \"name: demo\"; this is plain text"] },
        { "|name: x\nmodel:\n\tpath: m", ["bad.yaml:3:1: a tab indents this line; YAML allows only spaces, so replace it"] },
        { "|name: demo", [
            "bad.yaml:1:1 model: missing; add \"model:\" with path (a snapshot), or config and tokenizer",
            "bad.yaml:1:1 data: missing; add \"data:\" with train, a list of files such as [{path: train.jsonl}]"] },
        { "optimizer:\n  learnng_rate: 1", ["bad.yaml:8:3 optimizer.learnng_rate: unknown key; did you mean learning_rate?"] },
        { "optimizer:\n  lr: 1", ["bad.yaml:8:3 optimizer.lr: unknown key; the keys here are learning_rate, beta1, beta2, epsilon, weight_decay, max_gradient_norm, schedule, warmup_steps, warmup_ratio, min_learning_rate"] },
        { "optimizers: {}", ["bad.yaml:7:1 optimizers: unknown key; did you mean optimizer?"] },
        { "seed: 1\nseed: 2", ["bad.yaml:8:1 seed: the key is given twice, first in line 7; keep one"] },
        { "seed: 1.5", ["bad.yaml:7:7 seed: \"1.5\" was given; expected an integer such as 42"] },
        { "seed: \"1\"", ["bad.yaml:7:7 seed: \"1\" in quotes is text; give an integer such as 42, without quotes"] },
        { "seed: [1]", ["bad.yaml:7:7 seed: a list was given; expected an integer such as 42"] },
        { "seed:", ["bad.yaml:7:6 seed: no value; give an integer such as 42, or remove the key"] },
        { "seed: 99999999999", ["bad.yaml:7:7 seed: 99999999999 is out of range; give an integer from 0 to 2147483647"] },
        { "priority: -99999999999999999999", ["bad.yaml:7:11 priority: -99999999999999999999 is out of range; give an integer from -1000 to 1000"] },
        { "optimizer: {learning_rate: 1e999}", ["bad.yaml:7:28 optimizer.learning_rate: 1e999 is out of range; give a number above 0 to 100"] },
        { "seed: -1", ["bad.yaml:7:7 seed: -1 is out of range; give an integer of at least 0"] },
        { "training: {steps: 99999999999}", ["bad.yaml:7:19 training.steps: 99999999999 is out of range; give an integer from 1 to 2147483647"] },
        { "training: {steps: 0}", ["bad.yaml:7:19 training.steps: 0 is out of range; give an integer of at least 1"] },
        { "training: {steps: 1, epochs: 1}", ["bad.yaml:7:30 training.epochs: steps and epochs exclude each other; keep one"] },
        { "training: {epochs: 0}", ["bad.yaml:7:20 training.epochs: 0 is out of range; give a number above 0 to 100000"] },
        { "training: {batch_tokens: 1024}", ["bad.yaml:7:26 training.batch_tokens: 1024 is below data.max_length (2048), so the longest document would not fit; raise it to 2048 or lower data.max_length"] },
        { "training: 5", ["bad.yaml:7:11 training: \"5\" was given; expected a mapping with its keys indented below"] },
        { "lora:", ["bad.yaml:7:6 lora: no value; indent its keys below it, or write {} for the defaults"] },
        { "lora: {rank: 0}", ["bad.yaml:7:14 lora.rank: 0 is out of range; give an integer from 1 to 4096"] },
        { "lora: {dropout: 1.0}", ["bad.yaml:7:17 lora.dropout: 1 is out of range; give a number from 0 up to but not including 1"] },
        { "lora: {target_modules: [all-linear, q_proj]}", ["bad.yaml:7:24 lora.target_modules: all-linear stands alone; remove it or the other names"] },
        { "output: {merge: true}", ["bad.yaml:7:17 output.merge: merge needs lora, because only adapters can be merged; add lora or remove merge"] },
        { "output: {merge: yes}", ["bad.yaml:7:17 output.merge: \"yes\" was given; expected true or false"] },
        { "optimizer: {learning_rate: fast}", ["bad.yaml:7:28 optimizer.learning_rate: \"fast\" was given; expected a number such as 0.1 or 2e-5"] },
        { "optimizer: {learning_rate: .nan}", ["bad.yaml:7:28 optimizer.learning_rate: \".nan\" was given; expected a number such as 0.1 or 2e-5"] },
        { "optimizer: {schedule: cosin}", ["bad.yaml:7:23 optimizer.schedule: \"cosin\" is not one of cosine, linear, constant; did you mean cosine?"] },
        { "optimizer: {warmup_steps: 1, warmup_ratio: 0.1}", ["bad.yaml:7:44 optimizer.warmup_ratio: warmup_steps and warmup_ratio exclude each other; keep one"] },
        { "optimizer: {warmup_steps: 11}\ntraining: {steps: 10}", ["bad.yaml:7:27 optimizer.warmup_steps: 11 warm-up steps do not fit into training.steps (10); lower it"] },
        { "optimizer: {min_learning_rate: 0.1}", ["bad.yaml:7:32 optimizer.min_learning_rate: 0.1 is above learning_rate (1E-05); lower it"] },
        { "evaluation: {every: 5}", ["bad.yaml:7:21 evaluation.every: there is nothing to evaluate on; give data.eval or data.eval_fraction, or remove the key"] },
        { "checkpoint: {store: \"s3://x/y\"}", ["bad.yaml:7:21 checkpoint.store: \"s3://x/y\" is no store; give a directory, or azblob://CONTAINER/PREFIX (a container has 3 to 63 lower-case letters, digits and '-')"] },
        { "resources: {ranks: 0}", ["bad.yaml:7:20 resources.ranks: 0 is out of range; give an integer from 1 to 4096"] },
        { "resources: {ranks: 4097}", ["bad.yaml:7:20 resources.ranks: 4097 is out of range; give an integer from 1 to 4096"] },
        { "resources: {ranks: 2}\ntraining: {gradient_accumulation: 1048576}", ["bad.yaml:7:20 resources.ranks: 2 ranks of 1048576 micro-batches make a step of more than 1048576; lower training.gradient_accumulation"] },
        { "resources: {rank: 2}", ["bad.yaml:7:13 resources.rank: unknown key; did you mean ranks?"] },
        { "resources: {pool: GPU pool}", ["bad.yaml:7:19 resources.pool: \"GPU pool\" is no pool name; use 1 to 63 lower-case letters, digits, '-', '.', '_', starting with a letter or digit"] },
        { "resources: {pool: \"\"}", ["bad.yaml:7:19 resources.pool: \"\" is no pool name; use 1 to 63 lower-case letters, digits, '-', '.', '_', starting with a letter or digit"] },
        { "samples: {prompts: hello}", ["bad.yaml:7:20 samples.prompts: \"hello\" was given; expected a list, such as [a, b]"] },
        { "seed: &a 1", ["bad.yaml:7:7 seed: anchors and tags (& and !) are not supported; write the plain value"] },
        { "seed: !!str 1", ["bad.yaml:7:7 seed: anchors and tags (& and !) are not supported; write the plain value"] },
        { "---\nname: second", ["bad.yaml:7:1: a second document starts here; put one job in one file"] },
        { "|name: Bad Name!\nmodel: {path: a, config: b}\ndata: {train: []}", [
            "bad.yaml:1:7 name: \"Bad Name!\" is no job name; use 1 to 63 lower-case letters, digits, '-', '.', '_', starting with a letter or digit",
            "bad.yaml:2:26 model.config: path and config exclude each other; keep path to start from its weights, or config to start at random",
            "bad.yaml:3:15 data.train: the list is empty; give at least one file, such as [{path: train.jsonl}]"] },
        { "|name: a\nmodel: {}\ndata: {train: [{format: text}], eval: [{path: e}], eval_fraction: 0.1}", [
            "bad.yaml:3:16 data.train[0].path: missing; add \"path: train.jsonl\"",
            "bad.yaml:2:8 model: neither path nor config is given; give path (a Hugging Face snapshot), or config (a config.json, weights at random)",
            "bad.yaml:3:67 data.eval_fraction: eval and eval_fraction exclude each other; keep eval for files of their own, or eval_fraction for a share of train"] },
        { "|name: a\nmodel: {config: c.json}\ndata: {train: [{path: t, mapping: {prompt: [x]}}]}", [
            "bad.yaml:3:44 data.train[0].mapping.prompt: a list was given; expected text",
            "bad.yaml:2:8 model: config needs a tokenizer; add tokenizer, a directory with tokenizer.json or qwen.tiktoken"] },
    };

    [Theory]
    [InlineData("output: {path: \"/tmp/x\\0y\"}", "bad.yaml:7:16 output.path: \"/tmp/x\uFFFDy\" holds a control character; no path here may")]
    [InlineData("checkpoint: {store: \"azblob://runs/a\\0b\"}", "bad.yaml:7:21 checkpoint.store: \"azblob://runs/a\uFFFDb\" holds a control character; no path here may")]
    [InlineData("checkpoint: {resume_from: \"\\e[2J\"}", "bad.yaml:7:27 checkpoint.resume_from: \"\uFFFD[2J\" holds a control character; no path here may")]
    public void A_path_with_a_control_character_is_refused(string line, string problem)
    {
        ConfigException error = Assert.Throws<ConfigException>(() => JobConfigFile.Parse($"{Least}\n{line}", "bad.yaml"));

        Assert.Equal([problem], error.Problems);
    }

    [Fact]
    public void What_is_too_long_is_told_without_all_of_it()
    {
        string much = new('x', 900_000);
        foreach (string line in (string[])[$"seed: {much}", $"{much}: 1", $"optimizer: {{schedule: {much}}}", $"output: {{path: /{much}}}", $"resources: {{pool: {much}}}"])
        {
            ConfigException error = Assert.Throws<ConfigException>(() => JobConfigFile.Parse($"{Least}\n{line}", "bad.yaml"));
            Assert.InRange(Assert.Single(error.Problems).Length, 40, 400);
        }
    }

    [Fact]
    public void Values_nested_without_end_are_refused_at_once()
    {
        foreach (string brackets in (string[])[new('[', 20_000), string.Concat(Enumerable.Repeat("{a: ", 20_000)), string.Concat(Enumerable.Repeat("- ", 20_000))])
        {
            ConfigException error = Assert.Throws<ConfigException>(() => JobConfigFile.Parse($"name:\n  {brackets}", "bad.yaml"));
            Assert.Contains("nested more than 64 deep", Assert.Single(error.Problems), StringComparison.Ordinal);
        }
    }

    /// <summary>A client may send 2 MiB of them.</summary>
    [Fact]
    public void Very_many_keys_are_read_in_a_moment()
    {
        string mapping = string.Join(", ", Enumerable.Range(0, 90_000).Select(i => $"k{i}: v"));
        long start = TimeProvider.System.GetTimestamp();
        JobConfig job = JobConfigFile.Parse($"{Least}\n      mapping: {{{mapping}}}", "/jobs/wide.yaml");
        Assert.Equal(90_000, job.Data.Train[0].Mapping.Count);
        Assert.InRange(TimeProvider.System.GetElapsedTime(start), TimeSpan.Zero, TimeSpan.FromSeconds(20));
    }

    [Fact]
    public void What_a_client_sends_has_absolute_paths()
    {
        JobConfig job = JobConfigFile.Parse(Least, "/jobs/full.yaml");
        Assert.Equal(JobConfigJson.Write(job), JobConfigJson.Write(JobConfigFile.Receive(job)));
        foreach (string path in (string[])["x", "../x", "~/x", "C:\\x"])
        {
            ConfigException error = Assert.Throws<ConfigException>(() => JobConfigFile.Receive(job with { Checkpoint = new CheckpointConfig { Store = path } }));
            Assert.Contains("checkpoint.store", Assert.Single(error.Problems), StringComparison.Ordinal);
            Assert.EndsWith("give an absolute path", error.Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [MemberData(nameof(BadFiles))]
    public void Every_problem_is_told_with_place_and_cure(string text, string[] problems)
    {
        string yaml = text.StartsWith('|') ? text[1..] : $"{Least}\n{text}";

        ConfigException error = Assert.Throws<ConfigException>(() => JobConfigFile.Parse(yaml, "bad.yaml"));

        Assert.Equal(problems, error.Problems);
    }

    [Theory]
    [InlineData("model: {path: [a", "bad.yaml:")]
    [InlineData("a: b: c", "bad.yaml:7:")]
    [InlineData("text: \"open", "bad.yaml:")]
    [InlineData("*alias", "bad.yaml:")]
    public void Broken_YAML_is_told_with_its_place(string line, string start)
    {
        ConfigException error = Assert.Throws<ConfigException>(() => JobConfigFile.Parse($"{Least}\n{line}", "bad.yaml"));

        Assert.StartsWith(start, Assert.Single(error.Problems), StringComparison.Ordinal);
        Assert.Contains("not valid YAML", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_missing_file_a_directory_and_binary_files_are_told()
    {
        string folder = Directory.CreateTempSubdirectory().FullName;
        string binary = Path.Combine(folder, "job.yaml");
        File.WriteAllBytes(binary, [0xc3, 0x28]);

        Assert.Equal("no.yaml: there is no such file; check the path", Message("no.yaml"));
        Assert.Equal($"{folder}: this is a directory; name the YAML file in it", Message(folder));
        Assert.Equal($"{binary}: the file is not UTF-8 text; save it as UTF-8", Message(binary));

        static string Message(string path) => Assert.Throws<ConfigException>(() => JobConfigFile.Load(path)).Message;
    }

    [Fact]
    public void Options_win_over_the_file()
    {
        JobConfig job = JobConfigFile.Parse(Least, "/jobs/a.yaml",
            ["name=other", "optimizer.learning_rate=3e-4", "data.train[0].limit=5", "lora.rank=4", "samples.prompts=[a, \"b: c\"]", "data.system=a=b", "model.path=n"]);

        Assert.Equal("other", job.Name);
        Assert.Equal(3e-4, job.Optimizer.LearningRate);
        Assert.Equal(5, job.Data.Train[0].Limit);
        Assert.Equal(4, job.Lora!.Rank);
        Assert.Equal(["a", "b: c"], job.Samples.Prompts);
        Assert.Equal("a=b", job.Data.System);
        Assert.Equal("/jobs/n", job.Model.Path);
    }

    [Theory]
    [InlineData("seed", "--set seed: not of the form key=value, such as --set optimizer.learning_rate=2e-5 or --set data.train[0].limit=100")]
    [InlineData("a..b=1", "--set a..b=1: not of the form key=value, such as --set optimizer.learning_rate=2e-5 or --set data.train[0].limit=100")]
    [InlineData("sed=1", "--set sed: unknown key; did you mean seed?")]
    [InlineData("seed=x", "--set seed: \"x\" was given; expected an integer such as 42")]
    [InlineData("seed=[1", "--set seed: the value is not valid YAML; quote it, such as --set 'seed=\"...\"'")]
    [InlineData("optimizer.learnin_rate=1", "--set optimizer.learnin_rate: unknown key; did you mean learning_rate?")]
    [InlineData("data.train[1].limit=1", "--set data.train[1].limit: there is no entry [1]; the last one is [0]")]
    [InlineData("name.x=1", "--set name.x: x has no place here, because the value above it is not a mapping")]
    [InlineData("training.batch_tokens=10", "--set training.batch_tokens: 10 is below data.max_length (2048), so the longest document would not fit; raise it to 2048 or lower data.max_length")]
    public void Bad_options_are_told_as_options(string set, string problem)
    {
        ConfigException error = Assert.Throws<ConfigException>(() => JobConfigFile.Parse(Least, "a.yaml", [set]));

        Assert.Equal([problem], error.Problems);
    }
}
