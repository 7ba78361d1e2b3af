using System.Text.Json;
using System.Text.Json.Nodes;
using Trainer.Contracts;
using Trainer.Worker.Model;
using static TorchSharp.torch;

namespace Trainer.Worker.Export;

/// <summary>PEFT's adapter format: adapter_config.json, and the merge of adapters into weights.</summary>
public static class PeftAdapter
{
    public const string ConfigFile = "adapter_config.json";

    /// <exception cref="JobInputException">The file is missing or asks for something that isn't supported.</exception>
    public static LoraConfig ReadConfig(string directory)
    {
        string path = Path.Combine(directory, ConfigFile);
        JsonNode json;
        try
        {
            json = JsonNode.Parse(File.ReadAllText(path)) ?? throw new JobInputException($"{path}: a JSON object is expected");
        }
        catch (Exception e) when (e is JsonException or IOException)
        {
            throw new JobInputException($"{path}: {e.Message}", e);
        }

        Refuse(path, json, "peft_type", "LORA");
        Refuse(path, json, "bias", "none");
        foreach (string flag in (string[])["use_dora", "use_qalora", "fan_in_fan_out", "lora_bias"])
        {
            if (json[flag]?.GetValue<bool>() == true)
            {
                throw new JobInputException($"{path}: {flag} is not supported");
            }
        }

        foreach (string key in (string[])["rank_pattern", "alpha_pattern"])
        {
            if (json[key] is JsonObject { Count: > 0 })
            {
                throw new JobInputException($"{path}: {key} is not supported; one rank and alpha for all layers is");
            }
        }

        try
        {
            return Read(path, json);
        }
        catch (Exception e) when (e is InvalidOperationException or FormatException or NullReferenceException)
        {
            throw new JobInputException($"{path}: r, lora_alpha, lora_dropout or use_rslora is missing or of the wrong type ({e.Message})", e);
        }
    }

    private static LoraConfig Read(string path, JsonNode json)
    {
        return new LoraConfig
        {
            Rank = json["r"]!.GetValue<int>(),
            Alpha = json["lora_alpha"]!.GetValue<double>(),
            Dropout = json["lora_dropout"]?.GetValue<double>() ?? 0,
            Rslora = json["use_rslora"]?.GetValue<bool>() ?? false,
            TargetModules = json["target_modules"] switch
            {
                JsonArray names => [.. names.Select(name => name!.GetValue<string>())],
                JsonValue name => [name.GetValue<string>()],
                _ => throw new JobInputException($"{path}: target_modules is missing"),
            },
        };
    }

    /// <param name="baseModel">Where PEFT finds the base model: a directory or a hub name.</param>
    public static string WriteConfig(LoraAdapters lora, string? baseModel) => new JsonObject
    {
        ["base_model_name_or_path"] = baseModel,
        ["bias"] = "none",
        ["fan_in_fan_out"] = false,
        ["inference_mode"] = true,
        ["init_lora_weights"] = true,
        ["lora_alpha"] = lora.Config.Alpha,
        ["lora_dropout"] = lora.Config.Dropout,
        ["modules_to_save"] = null,
        ["peft_type"] = "LORA",
        ["r"] = lora.Config.Rank,
        ["revision"] = null,
        ["target_modules"] = new JsonArray([.. lora.Targets.Select(name => JsonValue.Create(name))]),
        ["task_type"] = "CAUSAL_LM",
        ["use_dora"] = false,
        ["use_rslora"] = lora.Config.Rslora,
    }.ToJsonString(new JsonSerializerOptions { WriteIndented = true }) + "\n";

    /// <summary>A weight with its adapter, if it has one, added in float32.</summary>
    public static Tensor Merged(NamedTensor weight, LoraAdapters lora)
    {
        Tensor rows = weight.Slice(weight.Parameter).detach();
        LoraAdapter? adapter = lora.All.FirstOrDefault(adapter => $"{adapter.FullName}.weight" == weight.Name);
        return adapter is null ? rows : rows.to(ScalarType.Float32) + adapter.Delta();
    }

    private static void Refuse(string path, JsonNode json, string key, string only)
    {
        if (json[key] is { } value && value.ToString() != only)
        {
            throw new JobInputException($"{path}: {key} '{value}' is not supported, only {only}");
        }
    }
}
