using System.Buffers.Binary;
using System.Text;
using Xunit.Abstractions;

namespace Trainer.EndToEnd.Tests;

/// <summary>What is wrong with a job is said before anything is written or started: file, line, cure, exit code 2.</summary>
public sealed class BadInputTests(ITestOutputHelper output)
{
    /// <param name="Spoil">Makes the tiny job bad.</param>
    /// <param name="Expected">What the message holds.</param>
    /// <param name="Options">Of the command, after the file.</param>
    private sealed record BadInput(Func<Workplace, Task> Spoil, string[] Expected, string[] Options, string File = TinyJob.File);

    private static readonly Dictionary<string, BadInput> s_inputs = new()
    {
        ["unknown key"] = Bad(place => place.Edit(TinyJob.File, "  warmup_steps: 3", "  warmup_steps: 3\n  flavour: 1"),
            "tiny.yaml:18:3", "optimizer.flavour"),
        ["misspelt key"] = Bad(place => place.Edit(TinyJob.File, "learning_rate:", "lerning_rate:"),
            "tiny.yaml:16:3", "optimizer.lerning_rate", "did you mean learning_rate?"),
        ["wrong type"] = Bad(place => place.Edit(TinyJob.File, "steps: 30", "steps: many"),
            "tiny.yaml:12:10", "training.steps", "many", "expected an integer such as 42"),
        ["two problems at once"] = Bad(place =>
        {
            place.Edit(TinyJob.File, "steps: 30", "steps: many");
            place.Edit(TinyJob.File, "keep: 2", "keep: 0");
        }, "tiny.yaml:12:10", "training.steps", "tiny.yaml:22:9", "checkpoint.keep"),
        ["missing key"] = Bad(place => place.Edit(TinyJob.File, "name: tiny\n", ""), "tiny.yaml", "name", "missing"),
        ["a tab"] = Bad(place => place.Edit(TinyJob.File, "  keep: 2", "\tkeep: 2"), "tiny.yaml:22:1", "tab"),
        ["YAML that is no text"] = Bad(place => File.WriteAllBytes(place.PathOf(TinyJob.File), [.. Encoding.UTF8.GetBytes(TinyJob.Yaml), 0xFF, 0xFE]),
            "tiny.yaml", "UTF-8"),
        ["an empty YAML file"] = Bad(place => File.WriteAllText(place.PathOf(TinyJob.File), ""), "tiny.yaml:1:1", "empty"),
        ["missing YAML file"] = Bad(_ => { }, "nowhere.yaml", "no such file") with { File = "nowhere.yaml" },
        ["a directory as YAML file"] = Bad(_ => { }, "tokenizer: this is a directory") with { File = "tokenizer" },
        ["unknown key in --set"] = Bad(_ => { }, "--set", "optimizer.lerning_rate", "did you mean learning_rate?") with
        {
            Options = ["--set", "optimizer.lerning_rate=1e-3"],
        },
        ["no YAML in --set"] = Bad(_ => { }, "--set training.steps", "quote it") with { Options = ["--set", "training.steps=[1"] },

        ["a bracket that is never closed"] = Bad(place => place.Edit(TinyJob.File, "name: tiny", "name: ["), "tiny.yaml:", "not valid YAML", "close every ["),
        ["a NUL byte"] = Bad(place => place.Edit(TinyJob.File, "name: tiny", "name: ti\0ny"), "tiny.yaml:1", "NUL"),
        ["a store that is a file"] = Bad(_ => { }, "--set checkpoint.store", "is a file", "directory") with { Options = ["--set", $"checkpoint.store={TinyJob.Dataset}"] },
        ["a store that cannot be made"] = Bad(_ => { }, "--set checkpoint.store", "nothing can be written in /proc", "directory") with { Options = ["--set", "checkpoint.store=/proc/store"] },
        ["an output that is a file"] = Bad(_ => { }, "--set output.path", "is a file", "directory") with { Options = ["--set", $"output.path={TinyJob.Dataset}"] },

        ["missing data set"] = Bad(place => File.Delete(place.PathOf(TinyJob.Dataset)), "tiny.yaml:7:13 data.train[0].path", "train.jsonl does not exist"),
        ["empty data set"] = Bad(place => File.WriteAllText(place.PathOf(TinyJob.Dataset), "\n\n"), "train.jsonl", "the dataset is empty", "write one JSON object per line"),
        ["a device as data set"] = Bad(_ => { }, "--set data.train[0].path", "/dev/zero is empty, a pipe or a device", "regular file") with { Options = ["--set", "data.train[0].path=/dev/zero"] },
        ["a link to nothing as data set"] = Bad(place => File.CreateSymbolicLink(place.PathOf("gone.jsonl"), "moved/train.jsonl"),
            "--set data.train[0].path", "gone.jsonl is a link to moved/train.jsonl, which does not exist") with { Options = ["--set", "data.train[0].path=gone.jsonl"] },
        ["a device as YAML file"] = Bad(_ => { }, "/dev/zero: the file is larger than 1 MiB") with { File = "/dev/zero" },
        ["malformed JSON"] = Bad(place => ReplaceLine(place, 17, """{"messages": [{"role": "user", "content": "Say""" ), "train.jsonl:17", "JSON"),
        ["a record that is no object"] = Bad(place => ReplaceLine(place, 8, "[1, 2]"), "train.jsonl:8", "object"),
        ["data that are no text"] = Bad(place =>
        {
            byte[] bytes = File.ReadAllBytes(place.PathOf(TinyJob.Dataset));
            bytes[bytes.AsSpan().IndexOf("Say"u8)] = 0xFF;
            File.WriteAllBytes(place.PathOf(TinyJob.Dataset), bytes);
        }, "train.jsonl:1", "UTF-8"),
        ["unknown role"] = Bad(place => ReplaceLine(place, 5, """{"messages": [{"role": "narrator", "content": "Once"}, {"role": "assistant", "content": "Yes."}]}"""),
            "train.jsonl:5", "narrator", "user, assistant"),
        ["nothing to train"] = Bad(place => File.WriteAllLines(place.PathOf(TinyJob.Dataset),
            Enumerable.Repeat("""{"messages": [{"role": "user", "content": "Hello?"}]}""", 40)), "train.jsonl", "no token of the 40 documents", "train_on_prompt"),
        ["missing field"] = Bad(place => ReplaceLine(place, 9, """{"text": "hello"}"""), "train.jsonl:9", "messages"),

        ["shapes that disagree with config.json"] = Snapshot(place => place.Edit("snapshot/config.json", "\"intermediate_size\": 128", "\"intermediate_size\": 64"),
            "snapshot/model.safetensors", "mlp.gate_proj.weight has shape [128, 64]", "asks for [64, 64]", "same snapshot"),
        ["layers that config.json does not know"] = Snapshot(place => place.Edit("snapshot/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"),
            "snapshot/model.safetensors", "model.layers.1.", "num_hidden_layers 1", "same snapshot"),
        ["missing tensors"] = Snapshot(place => place.Edit("snapshot/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
            "snapshot", "model.layers.2.", "missing", "same snapshot"),
        ["truncated safetensors file"] = Snapshot(place =>
        {
            using FileStream file = File.OpenWrite(place.PathOf("snapshot/model.safetensors"));
            file.SetLength(file.Length - 100);
        }, "snapshot/model.safetensors", "truncated", "download"),
        ["a safetensors file of three bytes"] = Snapshot(place => File.WriteAllBytes(place.PathOf("snapshot/model.safetensors"), [1, 2, 3]),
            "snapshot/model.safetensors", "truncated", "download"),
        ["absurd offsets"] = Snapshot(place => WriteSafetensors(place, """{"model.norm.weight":{"dtype":"F32","shape":[64],"data_offsets":[99999999999999,100000000000255]}}"""),
            "snapshot/model.safetensors", "model.norm.weight", "download"),
        ["offsets that run backwards"] = Snapshot(place => WriteSafetensors(place, """{"model.norm.weight":{"dtype":"F32","shape":[64],"data_offsets":[256,0]}}"""),
            "snapshot/model.safetensors", "model.norm.weight", "download"),
        ["an absurd header length"] = Snapshot(place => File.WriteAllBytes(place.PathOf("snapshot/model.safetensors"),
            [255, 255, 255, 255, 255, 255, 255, 127, .. new byte[64]]), "snapshot/model.safetensors", "header", "download"),
        ["missing weights"] = Snapshot(place => File.Delete(place.PathOf("snapshot/model.safetensors")), "snapshot", "model.safetensors", "download"),
        ["unsupported architecture"] = Bad(place => place.Edit(TinyJob.Model, "\"qwen3\"", "\"llama\""), "model.json", "llama", "supported are qwen2"),
        ["the architecture of another model"] = Bad(place => place.Edit(TinyJob.Model, "Qwen3ForCausalLM", "LlamaForCausalLM"), "model.json", "LlamaForCausalLM", "Qwen3ForCausalLM"),
        ["a key twice in config.json"] = Bad(place => place.Edit(TinyJob.Model, "\"vocab_size\":300", "\"vocab_size\":300,\"vocab_size\":300"), "model.json", "vocab_size", "keep one"),
        ["a rotary base of zero"] = Bad(place => place.Edit(TinyJob.Model, "\"rope_theta\":10000", "\"rope_theta\":0"), "model.json: rope_theta", "positive"),
        ["a negative epsilon"] = Bad(place => place.Edit(TinyJob.Model, "\"rms_norm_eps\":1E-06", "\"rms_norm_eps\":-1"), "model.json: rms_norm_eps", "positive"),
        ["a model larger than the machine"] = Bad(place => place.Edit(TinyJob.Model, "\"intermediate_size\":128", "\"intermediate_size\":16000000"), "model.json", "GiB of memory", "smaller model"),
        ["a tokenizer without the tokens of the template"] = Bad(place => place.Edit(TinyJob.Tokenizer, "im_end", "im_over"), "tokenizer.json", "im_end", "belongs to the model"),
        ["everything held out"] = Bad(place => File.WriteAllLines(place.PathOf(TinyJob.Dataset), File.ReadLines(place.PathOf(TinyJob.Dataset)).Take(1).ToArray()),
            "data.eval_fraction", "all 1 documents", "lower it") with { Options = ["--set", "data.eval_fraction=0.5"] },
        ["malformed config.json"] = Bad(place => File.WriteAllText(place.PathOf(TinyJob.Model), "{\n\"model_type\": \n"), "model.json:3", "malformed JSON", "download"),
        ["malformed tokenizer.json"] = Bad(place =>
        {
            using FileStream file = File.OpenWrite(place.PathOf(TinyJob.Tokenizer));
            file.SetLength(file.Length / 2);
        }, "tokenizer/tokenizer.json:1", "malformed JSON", "download"),
        ["a tokenizer larger than the model"] = Bad(place => place.Edit(TinyJob.Model, "\"vocab_size\":300", "\"vocab_size\":200"),
            "tokenizer", "vocab_size is 200", "same snapshot"),
        ["unknown LoRA target"] = Bad(_ => { }, "lora.target_modules", "'query'", "q_proj") with { Options = ["--set", "lora.target_modules=[query]"] },
        ["an output folder that is not empty"] = Bad(_ => { }, "output.path", "tokenizer is not empty", "another folder") with { Options = ["--set", "output.path=tokenizer"] },

        ["checkpoints of another job as store"] = OtherCheckpoints("checkpoint.store"),
        ["checkpoints of another job to resume from"] = OtherCheckpoints("checkpoint.resume_from"),
        ["another data file than that of the checkpoints"] = Bad(_ => { }, "checkpoint.resume_from: ", "the file of data.train[0] is another than then") with
        {
            Spoil = async place =>
            {
                Undisturbed undisturbed = await Undisturbed.OfAsync(Undisturbed.Full);
                await File.AppendAllLinesAsync(place.PathOf(TinyJob.Dataset), File.ReadLines(place.PathOf(TinyJob.Dataset)).Take(1).ToArray());
                place.Edit(TinyJob.File, "  keep: 2", $"  keep: 2\n  resume_from: {undisturbed.Files.Checkpoints}");
            },
        },
        ["the folder of one step to resume from"] = Resume("step-00000030", "tiny.yaml:23:16 checkpoint.resume_from: ", "the folder of one step: give the store above it, "),
        ["a job's folder to resume from"] = Resume("..", "a job's folder: give its checkpoints, "),
        ["a job's id to resume from"] = Bad(_ => { }, "no good checkpoint", "the last line of \"trainer checkpoints list tiny-abcd\" is what to give") with { Options = ["--set", "checkpoint.resume_from=tiny-abcd"] },
        ["damaged checkpoints to resume from"] = Bad(place =>
        {
            Directory.CreateDirectory(place.PathOf("old/step-00000030"));
            File.WriteAllText(place.PathOf("old/step-00000030/manifest.json"), "x");
        }, "no good checkpoint (step 30 is damaged: step-00000030/manifest.json: the manifest is damaged") with { Options = ["--set", "checkpoint.resume_from=old"] },
        ["no checkpoints to resume from"] = Bad(_ => { }, "checkpoint.resume_from", "no good checkpoint", "remove the key") with { Options = ["--set", "checkpoint.resume_from=empty"] },
    };

    public static TheoryData<string> Inputs => [.. s_inputs.Keys];

    [Theory]
    [MemberData(nameof(Inputs))]
    public async Task A_bad_job_is_refused_with_file_line_and_cure_and_leaves_nothing(string input)
    {
        BadInput bad = s_inputs[input];
        using var place = new Workplace();
        await bad.Spoil(place);
        string[] before = Everything(place);
        foreach (string verb in (string[])["validate", "submit"])
        {
            Outcome outcome = await place.RunAsync([verb, bad.File, .. bad.Options]);
            output.WriteLine($"trainer {verb}: {outcome.Error}");
            Assert.True(outcome.ExitCode == 2, outcome.Everything);
            Assert.Empty(outcome.Output);
            foreach (string expected in bad.Expected)
            {
                Assert.Contains(expected, outcome.Error, StringComparison.Ordinal);
            }
            Assert.DoesNotContain("   at ", outcome.Error, StringComparison.Ordinal);
            Assert.False(Directory.Exists(place.Home));
            Assert.Equal(before, Everything(place));
            Assert.Empty(place.Processes().Select(LinuxProcesses.CommandLine));
        }
    }

    [Theory]
    [InlineData("submit")]
    [InlineData("validate")]
    [InlineData("submit tiny.yaml --flavour vanilla")]
    [InlineData("subnit tiny.yaml")]
    [InlineData("status")]
    [InlineData("worker --slots x")]
    [InlineData("bench training --device x")]
    [InlineData("bench training --attention flash,math")]
    [InlineData("bench training --documents 100000 --tokens 100000")]
    [InlineData("verify x --template 9")]
    [InlineData("list -o x")]
    [InlineData("bench training --lora x")]
    [InlineData("logs tiny --attempt 99999999999")]
    public async Task A_wrong_command_line_exits_with_2_and_points_to_the_help(string arguments)
    {
        using var place = new Workplace();
        Outcome outcome = await place.RunAsync(arguments.Split(' '));
        Assert.True(outcome.ExitCode == 2, outcome.Everything);
        Assert.Contains("--help", outcome.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("System.", outcome.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("Trainer.", outcome.Error, StringComparison.Ordinal);
        Assert.False(Directory.Exists(place.Home));
    }

    private static BadInput Bad(Action<Workplace> spoil, params string[] expected) => new(place =>
    {
        spoil(place);
        return Task.CompletedTask;
    }, expected, []);

    /// <summary>Starts from the model that an undisturbed training exported, spoilt.</summary>
    private static BadInput Snapshot(Action<Workplace> spoil, params string[] expected) => new(async place =>
    {
        Undisturbed undisturbed = await Undisturbed.OfAsync(Undisturbed.Full);
        Directory.CreateDirectory(place.PathOf("snapshot"));
        foreach (string file in Directory.EnumerateFiles(undisturbed.Files.Model))
        {
            File.Copy(file, Path.Combine(place.PathOf("snapshot"), Path.GetFileName(file)));
        }
        place.Edit(TinyJob.File, $"config: {TinyJob.Model}\n  tokenizer: tokenizer", "path: snapshot");
        await place.DoAsync("validate", TinyJob.File);
        spoil(place);
    }, expected, []);

    /// <summary>The same job with another seed.</summary>
    private static BadInput OtherCheckpoints(string key) => Bad(_ => { }, "is a checkpoint of job 'tiny-", "fingerprint", "with a checkpoint.store of its own") with
    {
        Spoil = async place =>
        {
            Undisturbed undisturbed = await Undisturbed.OfAsync(Undisturbed.Full);
            await File.AppendAllTextAsync(place.PathOf(TinyJob.File), "seed: 7\n");
            place.Edit(TinyJob.File, "  keep: 2", $"  keep: 2\n  {key.Split('.')[1]}: {undisturbed.Files.Checkpoints}");
        },
    };

    /// <param name="below">Of the checkpoints of an undisturbed training.</param>
    private static BadInput Resume(string below, params string[] expected) => Bad(_ => { }, expected) with
    {
        Spoil = async place =>
        {
            Undisturbed undisturbed = await Undisturbed.OfAsync(Undisturbed.Full);
            place.Edit(TinyJob.File, "  keep: 2", $"  keep: 2\n  resume_from: {undisturbed.Files.Checkpoints}/{below}");
        },
    };

    private static void ReplaceLine(Workplace place, int number, string line)
    {
        string[] lines = File.ReadAllLines(place.PathOf(TinyJob.Dataset));
        lines[number - 1] = line;
        File.WriteAllLines(place.PathOf(TinyJob.Dataset), lines);
    }

    private static void WriteSafetensors(Workplace place, string header)
    {
        byte[] length = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(length, header.Length);
        File.WriteAllBytes(place.PathOf("snapshot/model.safetensors"), [.. length, .. Encoding.UTF8.GetBytes(header), .. new byte[256]]);
    }

    /// <summary>Files and folders with their lengths and times.</summary>
    private static string[] Everything(Workplace place) =>
        [.. new DirectoryInfo(place.Folder).EnumerateFileSystemInfos("*", SearchOption.AllDirectories)
            .Select(info => $"{info.FullName} {(info as FileInfo)?.Length} {info.LastWriteTimeUtc:O}").Order(StringComparer.Ordinal)];
}
