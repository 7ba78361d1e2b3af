using System.Buffers.Binary;
using System.Text.Json;
using Trainer.Contracts;
using Trainer.Worker.Checkpoints;
using Trainer.Worker.Tests.Checkpoints;
using Trainer.Worker.Verification;

namespace Trainer.Worker.Tests.Verification;

/// <summary>Small snapshots with values computed by transformers and peft, see tests/golden/README.md.</summary>
public sealed class GoldenCaseTests
{
    public static TheoryData<string, AttentionKind> Cases
    {
        get
        {
            var cases = new TheoryData<string, AttentionKind>();
            foreach (string file in Directory.EnumerateFiles(Repository.File("tests", "golden"), "golden.json", SearchOption.AllDirectories))
            {
                cases.Add(Path.GetFileName(Path.GetDirectoryName(file)!), AttentionKind.Flash);
                cases.Add(Path.GetFileName(Path.GetDirectoryName(file)!), AttentionKind.Math);
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Training_gives_the_numbers_of_transformers(string name, AttentionKind attention)
    {
        CaseResult result = Verify(Repository.File("tests", "golden", name), attention);
        Assert.All(result.Checks, check => Assert.True(check.Passed, $"{check.Name}: {check.Error} > {check.Tolerance}"));
        Assert.True(result.Passed);
        Assert.Contains(result.Checks, check => check.Name == "packed greedy tokens");
        Assert.Contains(result.Checks, check => check.Name == "padded logits");
    }

    [Fact]
    public void Every_golden_case_is_there() => Assert.Equal(12, Cases.Count);

    [Fact]
    public void A_sharded_snapshot_gives_the_same_numbers()
    {
        using TemporaryDirectory folder = Copy("qwen3-untied");
        Shard(folder.Path);
        Assert.True(Verify(folder.Path, AttentionKind.Auto).Passed);
    }

    [Theory]
    [InlineData("\"loss\":", "\"lost\":", "golden.json: loss is missing")]
    [InlineData("\"betas\": [", "\"betas\": [0.5, ", "golden.json: betas must be a list of 2 numbers")]
    [InlineData("\"lr\": 0.001", "\"lr\": \"0.001\"", "golden.json: lr must be a number")]
    [InlineData("\"greedy\": [", "\"greedy\": [512, ", "golden.json: greedy must be 12 prompt tokens")]
    public void A_damaged_case_is_named(string text, string other, string expected)
    {
        using TemporaryDirectory folder = Copy("qwen3-untied");
        string path = Path.Combine(folder.Path, "golden.json");
        string content = File.ReadAllText(path);
        Assert.Contains(text, content, StringComparison.Ordinal);
        File.WriteAllText(path, content.Replace(text, other, StringComparison.Ordinal));
        Assert.Contains(expected, Assert.Throws<JobInputException>(() => Verify(folder.Path, AttentionKind.Auto)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("golden.json", "6.5", "6.6")]
    [InlineData("config.json", "1000000.0", "10000.0")]
    public void A_wrong_number_is_found(string file, string text, string other)
    {
        using TemporaryDirectory folder = Copy("qwen3-untied");
        string path = Path.Combine(folder.Path, file);
        string content = File.ReadAllText(path);
        Assert.Contains(text, content, StringComparison.Ordinal);
        File.WriteAllText(path, content.Replace(text, other, StringComparison.Ordinal));
        CaseResult result = Verify(folder.Path, AttentionKind.Auto);
        Assert.False(result.Passed);
        Assert.Contains(result.Checks, check => !check.Passed);
    }

    [Fact]
    public void A_decay_that_is_half_of_what_it_should_be_shows_in_the_merged_weights()
    {
        using TemporaryDirectory folder = Copy("qwen2-lora");
        foreach (string inside in new[] { "adapter", "merged-after-6-steps" })
        {
            Directory.CreateDirectory(Path.Combine(folder.Path, inside));
            foreach (string file in Directory.EnumerateFiles(Repository.File("tests", "golden", "qwen2-lora", inside)))
            {
                File.Copy(file, Path.Combine(folder.Path, inside, Path.GetFileName(file)));
            }
        }

        string path = Path.Combine(folder.Path, "golden.json");
        File.WriteAllText(path, File.ReadAllText(path).Replace("\"weight_decay\": 0.1", "\"weight_decay\": 0.05", StringComparison.Ordinal));
        CaseResult result = Verify(folder.Path, AttentionKind.Auto);
        Assert.Contains(result.Checks, check => check.Name.StartsWith("packed merged weights", StringComparison.Ordinal) && !check.Passed);
    }

    [Theory]
    [InlineData("model.layers.0.self_attn.q_proj.weight", 2e-5f)]
    [InlineData("model.layers.2.self_attn.v_proj.weight", 2e-5f)]
    [InlineData("model.layers.1.self_attn.k_proj.weight", 2e-5f)]
    [InlineData("model.layers.0.self_attn.v_proj.weight", float.NaN)]
    public void One_merged_weight_that_is_off_is_found(string name, float by)
    {
        using TemporaryDirectory folder = Copy("qwen2-lora");
        foreach (string inside in new[] { "adapter", "merged-after-6-steps" })
        {
            Directory.CreateDirectory(Path.Combine(folder.Path, inside));
            foreach (string file in Directory.EnumerateFiles(Repository.File("tests", "golden", "qwen2-lora", inside)))
            {
                File.Copy(file, Path.Combine(folder.Path, inside, Path.GetFileName(file)));
            }
        }

        string path = Path.Combine(folder.Path, "merged-after-6-steps", "model.safetensors");
        byte[] bytes = File.ReadAllBytes(path);
        using (SafetensorsFile file = SafetensorsFile.Open(path))
        {
            Span<byte> weight = bytes.AsSpan((int)file.Tensors.Single(entry => entry.Name == name).Offset, sizeof(float));
            BinaryPrimitives.WriteSingleLittleEndian(weight, BinaryPrimitives.ReadSingleLittleEndian(weight) + by);
        }

        File.WriteAllBytes(path, bytes);
        CaseResult result = Verify(folder.Path, AttentionKind.Auto);
        Assert.Equal(["packed merged weights", "padded merged weights"], result.Checks.Where(check => !check.Passed).Select(check => check.Name));
        Assert.All(result.Checks.Where(check => !check.Passed), check => Assert.True(float.IsNaN(by) ? double.IsNaN(check.Error) : check.Error is > 1.5e-5 and < 2.5e-5, check.ToString()));
    }

    [Fact]
    public void A_flipped_weight_is_found()
    {
        using TemporaryDirectory folder = Copy("qwen2-tied");
        string path = Path.Combine(folder.Path, "model.safetensors");
        byte[] bytes = File.ReadAllBytes(path);
        bytes[^2] ^= 0x40;
        File.WriteAllBytes(path, bytes);
        Assert.False(Verify(folder.Path, AttentionKind.Auto).Passed);
    }

    [Theory]
    [InlineData("model_type\": \"qwen3", "model_type\": \"llama", "llama")]
    [InlineData("num_key_value_heads\": 2", "num_key_value_heads\": 3", "num_key_value_heads")]
    [InlineData("hidden_size\": 64", "hidden_size\": 96", "shape")]
    [InlineData("hidden_size\": 64", "hidden_size\": \"wide\"", "hidden_size")]
    public void A_config_that_does_not_fit_is_refused(string text, string other, string named)
    {
        using TemporaryDirectory folder = Copy("qwen3-untied");
        string path = Path.Combine(folder.Path, "config.json");
        string content = File.ReadAllText(path);
        Assert.Contains(text, content, StringComparison.Ordinal);
        File.WriteAllText(path, content.Replace(text, other, StringComparison.Ordinal));
        Assert.Contains(named, Assert.Throws<JobInputException>(() => Verify(folder.Path, AttentionKind.Auto)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_folder_without_golden_values_is_refused_with_its_name()
    {
        using TemporaryDirectory folder = Copy("qwen3-untied");
        File.Delete(Path.Combine(folder.Path, "golden.json"));
        Assert.Contains("golden.json", Assert.Throws<JobInputException>(() => Verify(folder.Path, AttentionKind.Auto)).Message, StringComparison.Ordinal);
    }

    private static CaseResult Verify(string folder, AttentionKind attention)
    {
        using GoldenCase golden = GoldenCase.Open(folder);
        return new Verifier(golden, attention).Run();
    }

    private static TemporaryDirectory Copy(string name)
    {
        var folder = new TemporaryDirectory();
        foreach (string file in Directory.EnumerateFiles(Repository.File("tests", "golden", name)))
        {
            File.Copy(file, Path.Combine(folder.Path, Path.GetFileName(file)));
        }

        return folder;
    }

    /// <summary>Every other tensor in one file, the rest in a second.</summary>
    private static void Shard(string folder)
    {
        string whole = Path.Combine(folder, "model.safetensors");
        var map = new Dictionary<string, string>();
        using (SafetensorsFile file = SafetensorsFile.Open(whole))
        {
            foreach (int shard in new[] { 0, 1 })
            {
                string name = $"model-0000{shard + 1}-of-00002.safetensors";
                TensorEntry[] entries = [.. file.Tensors.Where((_, i) => i % 2 == shard)];
                using FileStream stream = File.Create(Path.Combine(folder, name));
                SafetensorsWriter writer = SafetensorsWriter.StartAsync(
                    stream, [.. entries.Select(entry => new TensorSpec(entry.Name, entry.DType, entry.Shape))], null, default).GetAwaiter().GetResult();
                foreach (TensorEntry entry in entries)
                {
                    byte[] bytes = new byte[entry.Length];
                    file.Read(entry, bytes);
                    writer.WriteAsync(entry.Name, bytes, default).GetAwaiter().GetResult();
                    map[entry.Name] = name;
                }
            }
        }

        File.Delete(whole);
        File.WriteAllText(whole + ".index.json", JsonSerializer.Serialize(new { metadata = new { total_size = 0 }, weight_map = map }));
    }
}
