using System.Text.Json;

namespace Trainer.Worker.Checkpoints;

/// <summary>
/// The weights of a Hugging Face snapshot directory, whether in one file (model.safetensors) or in shards named by
/// model.safetensors.index.json.
/// </summary>
public sealed class SnapshotWeights : IDisposable
{
    private readonly List<SafetensorsFile> _files = [];
    private readonly Dictionary<string, (SafetensorsFile File, TensorEntry Entry)> _tensors = [];

    private SnapshotWeights(string directory) => Directory = directory;

    public string Directory { get; }

    public IReadOnlyCollection<string> Names => _tensors.Keys;

    /// <param name="directory">The snapshot.</param>
    /// <param name="stem">File name without .safetensors: "model", or "adapter_model" for a PEFT adapter.</param>
    /// <exception cref="JobInputException">No weights, a shard or a tensor is missing, or a file is damaged.</exception>
    public static SnapshotWeights Open(string directory, string stem = "model")
    {
        SnapshotWeights weights = new(directory);
        try
        {
            string single = Path.Combine(directory, $"{stem}.safetensors");
            string index = Path.Combine(directory, $"{stem}.safetensors.index.json");
            if (File.Exists(single))
            {
                weights.AddAll(single);
            }
            else if (File.Exists(index))
            {
                weights.AddIndexed(index);
            }
            else
            {
                throw NothingToOpen(directory, stem);
            }

            return weights;
        }
        catch
        {
            weights.Dispose();
            throw;
        }
    }

    public bool Contains(string name) => _tensors.ContainsKey(name);

    /// <exception cref="JobInputException">The snapshot has no tensor of that name.</exception>
    public TensorEntry Entry(string name) => Find(name).Entry;

    /// <summary>The file that holds the tensor, for messages.</summary>
    public string FileOf(string name) => Find(name).File.Path;

    /// <summary>Copies the tensor's bytes to host memory of exactly its length.</summary>
    public void Read(string name, nint destination, long length)
    {
        (SafetensorsFile file, TensorEntry entry) = Find(name);
        file.Read(entry, destination, length);
    }

    public void Dispose() => _files.ForEach(file => file.Dispose());

    private (SafetensorsFile File, TensorEntry Entry) Find(string name) =>
        _tensors.TryGetValue(name, out (SafetensorsFile, TensorEntry) found)
            ? found
            : throw new JobInputException($"{Directory}: has no tensor '{name}'; is it a snapshot of the model that config.json describes?");

    private SafetensorsFile AddFile(string path)
    {
        SafetensorsFile file = SafetensorsFile.Open(path);
        _files.Add(file);
        return file;
    }

    private void AddAll(string path)
    {
        SafetensorsFile file = AddFile(path);
        foreach (TensorEntry entry in file.Tensors)
        {
            _tensors.Add(entry.Name, (file, entry));
        }
    }

    private void AddIndexed(string index)
    {
        Dictionary<string, string> fileByTensor = ReadWeightMap(index);
        string[] shards = [.. fileByTensor.Values.Distinct().Order(StringComparer.Ordinal)];
        string[] missing = [.. shards.Where(shard => !File.Exists(Path.Combine(Directory, shard)))];
        if (missing.Length > 0)
        {
            throw new JobInputException(
                $"{index}: {missing.Length} of its {shards.Length} shards are missing in {Directory}: {string.Join(", ", missing)}; download them");
        }

        Dictionary<string, SafetensorsFile> opened = shards.ToDictionary(shard => shard, shard => AddFile(Path.Combine(Directory, shard)));
        foreach ((string tensor, string shard) in fileByTensor)
        {
            TensorEntry entry = opened[shard].Find(tensor)
                ?? throw new JobInputException($"{index}: tensor '{tensor}' is not in {opened[shard].Path}; download the snapshot again");
            _tensors.Add(tensor, (opened[shard], entry));
        }
    }

    private static Dictionary<string, string> ReadWeightMap(string index)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(index));
            if (document.RootElement.ValueKind != JsonValueKind.Object
                || !document.RootElement.TryGetProperty("weight_map", out JsonElement map)
                || map.ValueKind != JsonValueKind.Object)
            {
                throw new JobInputException($"{index}: has no weight_map object; download the snapshot again");
            }

            Dictionary<string, string> fileByTensor = [];
            foreach (JsonProperty property in map.EnumerateObject())
            {
                string? shard = property.Value.ValueKind == JsonValueKind.String ? property.Value.GetString() : null;
                if (string.IsNullOrEmpty(shard) || Path.GetFileName(shard) != shard)
                {
                    throw new JobInputException($"{index}: tensor '{property.Name}': {property.Value.GetRawText()} is not the name of a file beside it");
                }

                if (!fileByTensor.TryAdd(property.Name, shard))
                {
                    throw new JobInputException($"{index}: tensor '{property.Name}': weight_map names it twice");
                }
            }

            return fileByTensor;
        }
        catch (JsonException e)
        {
            throw new JobInputException($"{index}: not valid JSON: {e.Message}", e);
        }
    }

    private static JobInputException NothingToOpen(string directory, string stem)
    {
        if (!System.IO.Directory.Exists(directory))
        {
            return new JobInputException($"{directory}: no such directory; correct the path");
        }

        bool pickled = System.IO.Directory.EnumerateFiles(directory, "*.bin").Any();
        return new JobInputException(
            $"{directory}: has neither {stem}.safetensors nor {stem}.safetensors.index.json"
            + (pickled ? "; its *.bin weights are pickled, which is never loaded: convert them to safetensors" : "; download the weights too"));
    }
}
