using static TorchSharp.torch;

namespace Trainer.Worker.Model;

/// <summary>What a generation keeps of the tokens so far: every layer's keys and values, and the turns of positions, which its prompt decides.</summary>
public sealed class GenerationCache : IDisposable
{
    /// <param name="promptTokens">How many tokens the first call brings.</param>
    public GenerationCache(QwenConfig config, int promptTokens, Device device)
    {
        Layers = [.. Enumerable.Range(0, config.NumLayers).Select(_ => new KeyValueCache())];
        Rotary = new RotaryTable(config.HeadDim, config.LongContext?.Theta(config.RopeTheta, config.HeadDim, promptTokens) ?? config.RopeTheta, device);
    }

    public IReadOnlyList<KeyValueCache> Layers { get; }

    public RotaryTable Rotary { get; }

    /// <summary>Tokens so far.</summary>
    public int Length { get; set; }

    public void Dispose()
    {
        foreach (KeyValueCache layer in Layers)
        {
            layer.Dispose();
        }

        Rotary.Dispose();
    }
}
